"""The names that make markup of a `<`: elements and attributes (D16). Tables to read; ``core.wire.markup`` uses them.

Sources: WHATWG HTML, "Indices" and "Obsolete features"; SVG 1.1 and 2, "Element index"; MathML Core, and what MathML 3 has beyond
it for presentation. The content elements of MathML 3 (`int`, `max`, `list`) are left out: browsers know them no more than any other
word, and people write them.
"""

from __future__ import annotations

from typing import Final

_VOID: Final = """
    area base basefont bgsound br col command embed frame hr image img input keygen link meta nextid param source track wbr
"""

#: Elements that have no end tag.
VOID: Final = frozenset(_VOID.split())

#: Elements of which the content is no text.
RAW: Final = frozenset(("script", "style"))

_HTML: Final = """
    a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption cite code col colgroup
    data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header
    hgroup hr html i iframe img input ins kbd label legend li link main map mark menu meta meter nav noscript object ol optgroup
    option output p picture pre progress q rp rt ruby s samp script search section select selectedcontent slot small source span
    strong style sub summary sup table tbody td template textarea tfoot th thead time title tr track u ul var video wbr
    acronym applet basefont bgsound big blink center command dir font frame frameset image isindex keygen listing marquee menuitem
    multicol nextid nobr noembed noframes param plaintext rb rtc spacer strike tt xmp
"""

_SVG: Final = """
    a altglyph altglyphdef altglyphitem animate animatecolor animatemotion animatetransform audio canvas circle clippath color-profile
    cursor defs desc discard ellipse feblend fecolormatrix fecomponenttransfer fecomposite feconvolvematrix fediffuselighting
    fedisplacementmap fedistantlight fedropshadow feflood fefunca fefuncb fefuncg fefuncr fegaussianblur feimage femerge femergenode
    femorphology feoffset fepointlight fespecularlighting fespotlight fetile feturbulence filter font font-face font-face-format
    font-face-name font-face-src font-face-uri foreignobject g glyph glyphref hatch hatchpath hkern iframe image line lineargradient
    marker mask mesh meshgradient meshpatch meshrow metadata missing-glyph mpath path pattern polygon polyline radialgradient rect
    script set solidcolor stop style svg switch symbol text textpath title tref tspan unknown use video view vkern
"""

_MATHML: Final = """
    annotation annotation-xml maction maligngroup malignmark math menclose merror mfenced mfrac mglyph mi mlabeledtr mlongdiv
    mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mscarries mscarry msgroup msline mspace msqrt msrow mstack
    mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none semantics
"""

#: Elements of HTML, SVG and MathML, in lower case.
ELEMENTS: Final = frozenset(f"{_HTML} {_SVG} {_MATHML}".split())

_BOOLEAN: Final = """
    allowfullscreen allowpaymentrequest alpha async autofocus autoplay checked compact controls declare default defer disabled
    formnovalidate hidden inert ismap itemscope loop multiple muted nohref nomodule noresize noshade novalidate nowrap open playsinline
    readonly required reversed scoped seamless selected shadowrootclonable shadowrootcustomelementregistry
    shadowrootdelegatesfocus shadowrootserializable sortable truespeed typemustmatch
"""

#: Attributes that may stand without a value.
BOOLEAN_ATTRIBUTES: Final = tuple(_BOOLEAN.split())

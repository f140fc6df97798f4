"""Texts that could mean something else to whoever handles them on the way, and what is to be kept of each (D1, D10, D16)."""

from __future__ import annotations

from typing import Final, NamedTuple

#: What could mean something else to SQL, to JSON inside of SQL, to a format string, or to a driver.
METACHARACTERS: Final = (
    "'; DROP TABLE users;--",
    "Robert'); DROP TABLE messages;--",
    "1' OR '1'='1",
    '" OR ""="',
    "' UNION SELECT user_id, display_name FROM users --",
    "'||(SELECT hex(randomblob(9)))||'",
    "\\'; ATTACH DATABASE 'x' AS y;--",
    "'''",
    '"""',
    "\\\\\\",
    "```",
    "%_%",
    "[a-z]*",
    "/* x */",
    "???",
    "?1 ?2",
    ":rows",
    "@rows $rows",
    "%s %d %(rows)s %",
    "{0} {rows} {{}}",
    "$[0]",
    "[1,2]",
    '{"a":[1]}',
    '"quoted"',
    "null",
    "NULL",
    "true",
    "1234",
    "0123",
    "-12.5",
    "1e400",
    "0x41",
    "x'41'",
    "\\u0000 \\n \\x00",
)

#: Text from everywhere that sanitising must not touch.
ANYWHERE: Final = (
    "I <3 you & a < b && c > d, &lt;b&gt;",
    "two\nlines\tand a tab",
    "  not trimmed  ",
    "e\u0301 and \u00e9 stay what they are",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319A\u0334\u0335\u035c\u0330",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd and \u0645\u0631\u062d\u0628\u0627",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "\u4f60\u597d\u4e16\u754c \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940",
    "invisible: \u2028\u2029\x7f\x85\xa0\xad\u200b\ufeff",
    "\ufffd\uffff\ufdd0\ue000\U0010ffff",
    "\U0001f600" * 1000,
    "\U00020000\U0001d518" * 500,
)


class Text(NamedTuple):
    """What is sent, and what is to be kept of it."""

    sent: str
    kept: str


CONTENTS: Final = (
    *(Text(text, text) for text in METACHARACTERS + ANYWHERE),
    Text("a\x00b", "ab"),
    Text("\x00'; DROP TABLE users;\x00--", "'; DROP TABLE users;--"),
    Text("\x00" * 2000 + "at the end", "at the end"),
    Text("\r\n\x01\x1f\x1b[31m", "\n[31m"),
    Text("<b>'</b>; DROP", "'; DROP"),
    Text("<script>x</script>\U0001f600", "\U0001f600"),
    Text("one\r\ntwo\rthree", "one\ntwo\nthree"),
    Text("for(i=0;i<n;i++){ List<String> xs; }", "for(i=0;i< n;i++){ List< String> xs; }"),
    Text("<a" * 500, "< a" * 500),
)

#: Display names have 3 to 50 characters, are trimmed and normalised, and have nothing invisible.
NAMES: Final = (
    *(Text(text, text) for text in METACHARACTERS if 3 <= len(text) <= 50),
    Text("\U0001f600" * 50, "\U0001f600" * 50),
    Text("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
    Text("e\u0301e\u0301e\u0301", "\u00e9\u00e9\u00e9"),
    Text("A\x00l\x00ice", "Alice"),
    Text("\u202ereversed\u202c", "reversed"),
    Text("  in the middle  ", "in the middle"),
    Text("Bobby\u200b\u2060\ufeff", "Bobby"),
    Text("x<y", "x< y"),
    Text(
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f3f3\ufe0f\u200d\U0001f308",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f3f3\ufe0f\u200d\U0001f308",
    ),
)

#: User ids with FASTCHAT_USER_IDS=any. Those that look alike to a wildcard, a number or a comparison without case are different users.
USERS: Final = (
    *(
        "a_b",
        "axb",
        "a-b",
        "a.b",
        "Ab",
        "AB",
        "ab",
        "-a-",
        ".0.",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "alice+work@example.com",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
        "dc=com:x",
        "NULL",
        "null",
        "true",
        "select",
        "DROP",
    ),
    *("1", "01", "1.0", "1e0", "0", "00", "-1", "9" * 20, "x" * 128, "sqlite_master", "rows"),
)
NOT_USERS: Final = (
    "'",
    "a'b",
    'a"b',
    "a;b",
    "a b",
    "a%b",
    "a\x00b",
    "a\n",
    "\u00e9",
    "\U0001f600",
    "\u0661",
    "x" * 129,
    "..",
    "a/b",
    "",
)

#: Message ids are visible ASCII without < > & " '.
IDENTIFIERS: Final = (
    *(
        ";--",
        ";DROP/**/TABLE/**/users;--",
        "%",
        "_",
        "a_",
        "ab",
        "\\",
        "\\\\",
        "\\u0000",
        "`",
        "[x]",
        "?",
        "?1",
        ":rows",
    ),
    *(
        "@x",
        "$[0]",
        "{}",
        "%s",
        "(SELECT(1))",
        "||",
        "1",
        "01",
        "1.0",
        "1e0",
        "null",
        "NULL",
        "true",
        "A",
        "a",
        "x" * 64,
    ),
    "~!@#$%^*()_+{}|[]:;?,./=-",
)
NOT_IDENTIFIERS: Final = (
    "'",
    '"',
    "a b",
    "a<b",
    "a>b",
    "a&b",
    "\x00",
    "a\n",
    "\u00e9",
    "\U0001f600",
    "x" * 65,
    "",
)

// What the chat page makes of names, links and equal names. The argument is the directory of its modules; exits with 1 when something is wrong.

import assert from "node:assert/strict";

const { cleanName, fragmentOf, nameIn, tagsOf, userIn } = await import(new URL("names.js", process.argv[2]));
const ID = "5f8c1c52-9a44-4f7e-8d0e-1c9a4f7e8d0e";

// A link says whose it is, and what they are called; each can be read back, whatever the name has in it.
for (const id of [ID, "a@b.example", "auth0|1+1=2", "a:b"]) {
  assert.equal(userIn(fragmentOf(id)), id);
  for (const name of ["Ada Lovelace", "Ünal & Söhne", "100 %", "a&name=b", "#1", "שרה", "👩‍👩‍👧"]) {
    const fragment = fragmentOf(id, name);
    assert.match(fragment, /^#[\w.%!'()*~-]+&name=[\w.%!'()*~-]+$/);
    assert.equal(userIn(fragment), id);
    assert.equal(nameIn(fragment), name);
  }
}
for (const fragment of ["", "#", "#&name=Ada", "#<b>&name=Ada", "#%&name=Ada", "#name=Ada", `#${ID}`, `#${ID}&name=%`, `#${ID}&name=%ff`])
  assert.equal(nameIn(fragment), "", fragment);
assert.equal(userIn(`#${ID}&name=%`), ID);
assert.equal(fragmentOf(ID, "x".repeat(51)), `#${ID}`);
assert.equal(fragmentOf(ID, "\ud800\ud800"), `#${ID}`, "half a character has no place in a link");

// A name is cleaned as the server does it, and bounded.
assert.equal(cleanName("  \u202eAda\u202c\u0000 \u200bLovelace\n"), "Ada Lovelace");
assert.equal(cleanName("<b>Ada</b><img src=x onerror=alert(1)>"), "Ada");
assert.equal(cleanName("<\u200bb>Ada"), "Ada", "nothing that can't be seen hides markup");
assert.equal(cleanName("e\u0301"), "é");
for (const none of ["", " ", "\u2060", "<b>", "x".repeat(51), "x".repeat(1e6)]) assert.equal(cleanName(none), "");

// Equal names, whatever their case, form and spaces, get the shortest beginning of the ids that tells them apart; others get nothing.
const tags = (people) => Object.fromEntries(tagsOf(Object.entries(people)));
assert.deepEqual(tags({ abcdef: "Ada", bcdefg: "Bob" }), {});
assert.deepEqual(tags({ abcdef: "Ada", bcdefg: "ADA", cdefgh: "Bob" }), { abcdef: "abcd", bcdefg: "bcde" });
assert.deepEqual(tags({ "ann@x.example": "A  B", "anna@x.example": "a b" }), { "ann@x.example": "ann@", "anna@x.example": "anna" });
assert.deepEqual(tags({ "auth0|1": "é", "auth0|12": "e\u0301" }), { "auth0|1": "auth0|1", "auth0|12": "auth0|12" });

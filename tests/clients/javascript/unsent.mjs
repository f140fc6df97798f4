// In which order the chat page sends what it kept. The argument is the directory of its modules; exits with 1 when it is wrong.

import assert from "node:assert/strict";

globalThis.window = {};
const { Person } = await import(new URL("storage.js", process.argv[2]));
const person = new Person(new URLSearchParams(), "");
person.introduce("Somebody");
const to = "11111111-1111-4111-8111-111111111111";
// The clock is put back by an hour after the third.
const times = [0, 1, 2, -3600, -3599, -3598, 3, 3, 3].map((seconds) => 1_700_000_000_000 + 1000 * seconds);
for (const [number, at] of times.entries()) person.saveUnsent({ messageId: `m-${number}`, to, content: `${number}`, at });
assert.deepEqual(
  person.loadUnsent().map(({ content }) => content),
  times.map((_, number) => `${number}`),
);

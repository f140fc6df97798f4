// The order of a chat on the page, beside the server's order. The first argument is the module; exits with 1 when they differ.

import assert from "node:assert/strict";

const { Thread } = await import(process.argv[2]);
const [ME, PEER] = ["me", "peer"];
const NOON = Date.UTC(2024, 0, 1, 12);
const HOUR = 3_600_000;

/** What was written, oldest first; the clock was put back by five hours in the middle, and was right again later. */
const clock = (number) => NOON + number * 1000 - (number >= 6 && number < 12 ? 5 * HOUR : 0);
const all = Array.from({ length: 18 }, (_, number) => ({
  from: number % 3 ? ME : PEER,
  to: number % 3 ? PEER : ME,
  content: `${number}`,
  messageId: `m-${number}`,
  timestamp: new Date(clock(number)).toISOString(),
}));
const contents = (thread) => thread.items.map((item) => item.content);
const expected = (begin, end = all.length) => all.slice(begin, end).map((message) => message.content);

for (const size of [1, 2, 3, 5, 18]) {
  for (const live of [0, 1, 4, 9]) {
    const thread = new Thread(ME);
    const stored = all.length - live;
    let end = stored;
    let newest = true;
    while (end > 0) {
      const begin = Math.max(0, end - size);
      thread.merge(all.slice(begin, end).toReversed(), begin ? `${begin}` : null, newest);
      assert.deepEqual(contents(thread), expected(begin, stored), `pages of ${size}, up to ${begin}`);
      [end, newest] = [begin, false];
    }
    for (const message of all.slice(stored)) {
      if (message.from === ME) {
        thread.write(message.messageId, message.content, Date.parse(message.timestamp));
        thread.progress(message.messageId, "accepted");
      } else thread.arrive(message);
    }
    assert.deepEqual(contents(thread), expected(0), `${live} live ones behind pages of ${size}`);
    // As after a reconnect: the newest page again.
    thread.merge(all.slice(-10).toReversed(), "8", true);
    assert.deepEqual(contents(thread), expected(0), `${live} live ones and the newest page again`);
    assert.deepEqual(
      thread.items.slice(-10).map((item) => item.at),
      all.slice(-10).map((_, index) => clock(8 + index)),
    );
  }
}

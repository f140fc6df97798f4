// What the chat page counts as unread. The argument is the directory of its modules; exits with 1 when something is wrong.

import assert from "node:assert/strict";

const { Chats } = await import(new URL("chats.js", process.argv[2]));
const [ME, PEER] = ["me", "peer"];
const NOON = Date.UTC(2024, 0, 1, 12);

const message = (seq, time = NOON) => ({
  from: PEER,
  to: ME,
  content: `text ${seq}`,
  messageId: `m-${seq}`,
  timestamp: new Date(time).toISOString(),
  seq,
});
const arrive = (chats, ...args) => {
  const { chat, item, isNew } = chats.arrive(message(...args));
  return { chat, item, isNew };
};
const saved = (chats) => JSON.parse(JSON.stringify(chats.records()));

// Three within one millisecond are three; having seen the first is not having seen the others, nor is it so after a reload.
let chats = new Chats(ME, []);
const [first] = [1, 2, 3].map((seq) => arrive(chats, seq));
assert.equal(chats.unread, 3);
assert.ok(first.chat.sawMessage("m-1", 1));
assert.equal(chats.unread, 2);
chats = new Chats(ME, saved(chats));
assert.equal(chats.unread, 2);
const { chat, isNew } = arrive(chats, 4);
assert.ok(isNew);
assert.equal(chats.unread, 3);

// Having seen the last one is having seen all; the same one again changes nothing.
assert.ok(chat.sawMessage("m-4", 4));
assert.equal(chats.unread, 0);
assert.ok(!chat.sawMessage("m-4", 4));

// The server's clock is put back by an hour: what comes is new, counts, and its words are the last ones.
const late = arrive(chats, 5, NOON - 3_600_000);
assert.ok(late.isNew);
assert.equal(chats.unread, 1);
assert.equal(chat.record.last.content, "text 5");

// Another tab has seen it before it came here.
assert.ok(chat.sawMessage("m-6", 6));
assert.equal(chats.unread, 0);
assert.ok(!arrive(chats, 6).isNew);
assert.equal(chats.unread, 0);

// Who answers, on another device, has read; what comes then is new.
arrive(chats, 7);
chats.arrive({ ...message(0), from: ME, to: PEER, messageId: "own", seq: undefined });
assert.equal(chats.unread, 0);
assert.ok(arrive(chats, 8).isNew);

// A message that the history brings after a reload is the one that is counted.
chats = new Chats(ME, saved(chats));
const again = chats.with(PEER);
again.thread.merge(
  [message(8), message(7)].map(({ seq, ...rest }) => rest),
  null,
  true,
);
assert.deepEqual(
  again.unreadItems.map((item) => item.messageId),
  ["m-8"],
);
assert.ok(again.sawMessage("m-8", again.unreadItems[0].seq));
assert.equal(chats.unread, 0);
assert.ok(arrive(chats, 9).isNew);

// A new mailbox counts from 1 again: what comes is new, and seeing it is having seen what was left from before.
chats.startOver();
const fresh = chats.arrive({ ...message(2), messageId: "n-2" });
assert.ok(fresh.isNew);
assert.ok(fresh.chat.sawMessage("n-2", 2));
assert.equal(chats.unread, 0);

// What earlier versions kept is no reason to fail.
assert.equal(new Chats(ME, [{ id: PEER, name: "Peer", unread: [NOON, NOON + 1], readAt: NOON }]).unread, 0);

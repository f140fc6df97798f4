"""The SQL of the store: written by ``python -m workers.store.queries``, which says what each statement is for. Not to be edited."""

from __future__ import annotations

from typing import Final

NO_CHAT: Final = 0

SMALL_CHAT: Final = 1000

BITE_ROWS: Final = 200

APPEND: Final = """\
INSERT INTO messages (mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4, json_extract(given.value, '$[4]') AS json_extract_5, json_extract(given.value, '$[5]') AS json_extract_6, json_extract(given.value, '$[6]') AS json_extract_7, json_extract(given.value, '$[7]') AS json_extract_8, json_extract(given.value, '$[8]') AS json_extract_9
FROM json_each(CAST(? AS TEXT)) AS given"""

APPEND_ROW: Final = """\
INSERT INTO messages (mailbox, seq, chat, id_hash, message_id, content, sent_at, receipts, lamport) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

SAVE_USERS: Final = """\
INSERT INTO users (number, user_id, slot, display_name, acknowledges, epoch, acknowledged_through, purged_through, seen_at, left_at, kept, banned) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4, json_extract(given.value, '$[4]') AS json_extract_5, json_extract(given.value, '$[5]') AS json_extract_6, json_extract(given.value, '$[6]') AS json_extract_7, json_extract(given.value, '$[7]') AS json_extract_8, json_extract(given.value, '$[8]') AS json_extract_9, json_extract(given.value, '$[9]') AS json_extract_10, coalesce(json_extract(given.value, '$[10]'), 0) AS coalesce_1, coalesce(json_extract(given.value, '$[11]'), 0) AS coalesce_2
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT (number) DO UPDATE SET display_name = excluded.display_name, acknowledges = excluded.acknowledges, seen_at = excluded.seen_at, left_at = excluded.left_at, kept = excluded.kept, banned = excluded.banned"""

SAVE_CHATS: Final = """\
INSERT INTO chats (number, user, peer, peer_name, confirmed, written, active_at, newest, read_through, unread, summed_through, hidden, muted) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4, json_extract(given.value, '$[4]') AS json_extract_5, json_extract(given.value, '$[5]') AS json_extract_6, json_extract(given.value, '$[6]') AS json_extract_7, json_extract(given.value, '$[7]') AS json_extract_8, json_extract(given.value, '$[8]') AS json_extract_9, json_extract(given.value, '$[9]') AS json_extract_10, json_extract(given.value, '$[10]') AS json_extract_11, json_extract(given.value, '$[11]') AS json_extract_12, json_extract(given.value, '$[12]') AS json_extract_13
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT (number) DO UPDATE SET peer_name = excluded.peer_name, confirmed = excluded.confirmed, written = excluded.written, active_at = excluded.active_at, newest = excluded.newest, read_through = excluded.read_through, unread = excluded.unread, summed_through = excluded.summed_through, hidden = excluded.hidden, muted = excluded.muted"""

SAVE_BLOCKS: Final = """\
INSERT INTO blocks (user, peer, by_user, by_peer, read_through, withheld) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4, json_extract(given.value, '$[4]') AS json_extract_5, json_extract(given.value, '$[5]') AS json_extract_6
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT (user, peer) DO UPDATE SET by_user = excluded.by_user, by_peer = excluded.by_peer, read_through = excluded.read_through, withheld = excluded.withheld"""

SAVE_HOOK_CALLS: Final = """\
INSERT INTO hook_calls (user, peer, since, due) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT (user, peer) DO UPDATE SET since = excluded.since, due = excluded.due"""

DROP_BLOCKS: Final = """\
DELETE FROM blocks WHERE (blocks.user, blocks.peer) IN (SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2
FROM json_each(CAST(? AS TEXT)) AS given)"""

DROP_HOOK_CALLS: Final = """\
DELETE FROM hook_calls WHERE (hook_calls.user, hook_calls.peer) IN (SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2
FROM json_each(CAST(? AS TEXT)) AS given)"""

SAVE_SUMMED: Final = """\
UPDATE users SET summed_through=json_extract(given.value, '$[1]') FROM json_each(CAST(? AS TEXT)) AS given WHERE users.number = json_extract(given.value, '$[0]')"""

SAVE_ACKNOWLEDGED: Final = """\
UPDATE users SET acknowledged_through=json_extract(given.value, '$[1]') FROM json_each(CAST(? AS TEXT)) AS given WHERE users.number = json_extract(given.value, '$[0]') AND users.acknowledged_through < json_extract(given.value, '$[1]')"""

FORGET_ACKNOWLEDGED: Final = """\
DELETE FROM acknowledged WHERE (acknowledged.mailbox, acknowledged.seq) IN (SELECT acknowledged.mailbox, acknowledged.seq
FROM json_each(CAST(? AS TEXT)) AS given JOIN acknowledged ON acknowledged.mailbox = json_extract(given.value, '$[0]') AND acknowledged.seq <= json_extract(given.value, '$[1]'))"""

SAVE_AHEAD: Final = """\
INSERT INTO acknowledged (mailbox, seq) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT DO NOTHING"""

FORGET: Final = (
    """\
DELETE FROM messages WHERE messages.mailbox IN (SELECT users.number
FROM users
WHERE users.user_id IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given))""",
    """\
DELETE FROM messages WHERE messages.mailbox IN (SELECT -users.number
FROM users
WHERE users.user_id IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given))""",
    """\
DELETE FROM acknowledged WHERE acknowledged.mailbox IN (SELECT users.number
FROM users
WHERE users.user_id IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given))""",
    """\
DELETE FROM users WHERE users.number IN (SELECT users.number
FROM users
WHERE users.user_id IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given))""",
)

DROP_BEYOND: Final = """\
DELETE FROM messages WHERE messages.number IN (SELECT messages.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq > json_extract(given.value, '$[1]'))"""

DROP_AT: Final = """\
DELETE FROM messages WHERE messages.number IN (SELECT messages.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq = json_extract(given.value, '$[1]'))"""

DROP_PLACES: Final = """\
DELETE FROM messages WHERE messages.number IN (SELECT messages.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.chat = json_extract(given.value, '$[2]') AND messages.id_hash = json_extract(given.value, '$[3]'))"""

DROP_OTHER_USERS: Final = (
    """\
DELETE FROM messages WHERE messages.mailbox IN (SELECT users.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.number != json_extract(given.value, '$[0]') AND users.user_id = json_extract(given.value, '$[1]'))""",
    """\
DELETE FROM messages WHERE messages.mailbox IN (SELECT -users.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.number != json_extract(given.value, '$[0]') AND users.user_id = json_extract(given.value, '$[1]'))""",
    """\
DELETE FROM acknowledged WHERE acknowledged.mailbox IN (SELECT users.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.number != json_extract(given.value, '$[0]') AND users.user_id = json_extract(given.value, '$[1]'))""",
    """\
DELETE FROM users WHERE users.number IN (SELECT users.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.number != json_extract(given.value, '$[0]') AND users.user_id = json_extract(given.value, '$[1]'))""",
)

DROP_OTHER_CHATS: Final = (
    """\
DELETE FROM messages WHERE messages.chat IN (SELECT chats.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN chats ON chats.number != json_extract(given.value, '$[0]') AND chats.user = json_extract(given.value, '$[1]') AND chats.peer = json_extract(given.value, '$[2]'))""",
    """\
DELETE FROM chats WHERE chats.number IN (SELECT chats.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN chats ON chats.number != json_extract(given.value, '$[0]') AND chats.user = json_extract(given.value, '$[1]') AND chats.peer = json_extract(given.value, '$[2]'))""",
)

PROBE: Final = """\
PRAGMA user_version = 0"""

SAVE_OLD_CHATS: Final = """\
INSERT INTO chats (number, user, peer, peer_name, confirmed, written) SELECT json_extract(given.value, '$[0]') AS json_extract_1, json_extract(given.value, '$[1]') AS json_extract_2, json_extract(given.value, '$[2]') AS json_extract_3, json_extract(given.value, '$[3]') AS json_extract_4, json_extract(given.value, '$[4]') AS json_extract_5, json_extract(given.value, '$[5]') AS json_extract_6
FROM json_each(CAST(? AS TEXT)) AS given
WHERE 1 = 1 ON CONFLICT (number) DO UPDATE SET peer_name = excluded.peer_name, confirmed = excluded.confirmed, written = excluded.written"""

CONFIRM_CHATS: Final = """\
UPDATE chats SET confirmed=1 WHERE chats.number IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given)"""

MARK_READ: Final = """\
UPDATE chats SET read_through=read.through FROM (SELECT messages.chat AS chat, max(messages.seq) AS through
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq = json_extract(given.value, '$[1]') GROUP BY messages.chat) AS read WHERE chats.number = read.chat AND chats.read_through < read.through"""

COUNT_CHATS: Final = """\
UPDATE chats SET active_at=max(chats.active_at, sums.active_at), newest=sums.newest, unread=sums.unread FROM (SELECT known.number AS number, max(messages.seq) AS newest, max(messages.sent_at) AS active_at, sum(CAST(messages.seq > max(known.read_through, users.acknowledged_through) AS INTEGER)) AS unread
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.number = given.value JOIN messages ON messages.mailbox = users.number JOIN chats AS known ON known.number = messages.chat GROUP BY known.number) AS sums WHERE chats.number = sums.number"""

COUNT_USERS: Final = """\
UPDATE users SET summed_through=max(users.purged_through, coalesce((SELECT max(messages.seq) AS max_1
FROM messages
WHERE messages.mailbox = users.number), 0)) WHERE users.number IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given)"""

LOAD_FOLDED: Final = """\
SELECT commit_log.folded
FROM commit_log"""

SAVE_FOLDED: Final = """\
UPDATE commit_log SET folded=?"""

COUNT_SYNC: Final = """\
UPDATE commit_log SET syncs=(commit_log.syncs + 1)"""

FIND: Final = """\
SELECT json_group_array(json_array(given."key", messages.seq, messages.chat, messages.message_id, messages.content, messages.sent_at, messages.receipts, messages.mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000))) AS json_group_array_1
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.chat = json_extract(given.value, '$[0]') AND messages.id_hash = json_extract(given.value, '$[1]')"""

IS_STORED: Final = """\
SELECT messages.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.chat = json_extract(given.value, '$[0]') AND messages.id_hash = json_extract(given.value, '$[1]')
LIMIT 1 OFFSET 0"""

FIND_IN_MAILBOX: Final = """\
SELECT json_group_array(json_array(given."key", messages.seq, messages.chat, messages.message_id, messages.content, messages.sent_at, messages.receipts, messages.mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000))) AS json_group_array_1
FROM json_each(CAST(? AS TEXT)) AS given JOIN chats ON chats.user = json_extract(given.value, '$[0]') AND (json_extract(given.value, '$[1]') IS NULL OR chats.peer = json_extract(given.value, '$[1]')) JOIN messages ON messages.chat = chats.number AND messages.id_hash = json_extract(given.value, '$[2]')"""

READ: Final = """\
SELECT json_group_array(json((SELECT json_group_array(json_array(sized.seq, sized.chat, sized.message_id, sized.content, sized.sent_at, sized.receipts, sized.mailbox, sized.lamport)) AS json_group_array_2
FROM (SELECT rows.seq AS seq, rows.chat AS chat, rows.message_id AS message_id, rows.content AS content, rows.sent_at AS sent_at, rows.receipts AS receipts, rows.mailbox AS mailbox, rows.lamport AS lamport, sum(length(CAST(rows.content AS BLOB)) + 210) OVER (ORDER BY rows.seq) - (length(CAST(rows.content AS BLOB)) + 210) AS "before"
FROM (SELECT messages.seq AS seq, messages.chat AS chat, messages.message_id AS message_id, messages.content AS content, messages.sent_at AS sent_at, messages.receipts AS receipts, messages.mailbox AS mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000) AS lamport
FROM messages
WHERE messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq > json_extract(given.value, '$[1]') AND messages.chat != 0 ORDER BY messages.seq
LIMIT 256 OFFSET 0) AS rows ORDER BY rows.seq) AS sized
WHERE sized."before" < 65536))) AS json_group_array_1
FROM json_each(CAST(? AS TEXT)) AS given"""

SENDERS: Final = """\
SELECT json_group_array(json_array(rows.seq, rows.chat)) AS json_group_array_1
FROM (SELECT messages.seq AS seq, messages.chat AS chat
FROM messages
WHERE messages.mailbox = ? AND messages.seq > ? AND messages.chat != 0 ORDER BY messages.seq
LIMIT 4096 OFFSET 0) AS rows"""

MESSAGES_AT: Final = """\
SELECT json_group_array(json_array(messages.seq, messages.chat, messages.message_id, messages.content, messages.sent_at, messages.receipts, messages.mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000))) AS json_group_array_1
FROM messages
WHERE messages.mailbox = ? AND messages.seq IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given)"""

LASTS: Final = """\
SELECT json_group_array(json_array(users.user_id, messages.seq, messages.chat, messages.message_id, messages.content, messages.sent_at, messages.receipts, messages.mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000))) AS json_group_array_1
FROM json_each(CAST(? AS TEXT)) AS given JOIN users ON users.user_id = given.value JOIN chats ON chats.user = users.number AND chats.peer = ? JOIN messages ON messages.number = (SELECT max(messages.number) AS max_1
FROM messages
WHERE messages.chat = chats.number)"""

CONVERSATION: Final = """\
SELECT json_array(users.number, chats.number, (SELECT count(*) AS count_1
FROM (SELECT messages.number AS number
FROM messages
WHERE messages.chat = chats.number
LIMIT 1001 OFFSET 0) AS some)) AS json_array_1
FROM users JOIN chats ON users.number = chats.user
WHERE users.user_id = ? AND chats.peer = ?"""

HISTORY_OF_SMALL: Final = """\
SELECT json_group_array(json_array(rows.seq, rows.chat, rows.message_id, rows.content, rows.sent_at, rows.receipts, rows.mailbox, rows.lamport)) AS json_group_array_1
FROM (SELECT messages.seq AS seq, messages.chat AS chat, messages.message_id AS message_id, messages.content AS content, messages.sent_at AS sent_at, messages.receipts AS receipts, messages.mailbox AS mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000) AS lamport
FROM messages
WHERE messages.mailbox + 0 = ? AND messages.chat = ? AND messages.seq < ? ORDER BY messages.seq DESC
LIMIT ? OFFSET 0) AS rows"""

HISTORY: Final = """\
SELECT json_group_array(json_array(rows.seq, rows.chat, rows.message_id, rows.content, rows.sent_at, rows.receipts, rows.mailbox, rows.lamport)) AS json_group_array_1
FROM (SELECT messages.seq AS seq, messages.chat AS chat, messages.message_id AS message_id, messages.content AS content, messages.sent_at AS sent_at, messages.receipts AS receipts, messages.mailbox AS mailbox, coalesce(messages.lamport, messages.sent_at - 1000000000000000) AS lamport
FROM messages
WHERE messages.mailbox = ? AND messages.chat + 0 = ? AND messages.seq < ? ORDER BY messages.seq DESC
LIMIT ? OFFSET 0) AS rows"""

COVERED_OF_SMALL: Final = """\
SELECT json_group_array(json_array(rows.seq, rows.message_id, rows.receipts)) AS json_group_array_1
FROM (SELECT messages.seq AS seq, messages.message_id AS message_id, messages.receipts AS receipts
FROM messages
WHERE messages.mailbox + 0 = ? AND messages.chat = ? AND messages.seq > ? AND messages.seq <= ? ORDER BY messages.seq
LIMIT 512 OFFSET 0) AS rows"""

COVERED: Final = """\
SELECT json_group_array(json_array(rows.seq, rows.message_id, rows.receipts)) AS json_group_array_1
FROM (SELECT messages.seq AS seq, messages.message_id AS message_id, messages.receipts AS receipts
FROM messages
WHERE messages.mailbox = ? AND messages.chat + 0 = ? AND messages.seq > ? AND messages.seq <= ? ORDER BY messages.seq
LIMIT 512 OFFSET 0) AS rows"""

COUNT_OF_SMALL: Final = """\
SELECT count(*) AS count_1
FROM messages
WHERE messages.mailbox + 0 = ? AND messages.chat = ? AND messages.seq > ? AND messages.seq <= ?"""

COUNT: Final = """\
SELECT count(*) AS count_1
FROM messages
WHERE messages.mailbox = ? AND messages.chat + 0 = ? AND messages.seq > ? AND messages.seq <= ?"""

LOAD: Final = """\
SELECT json_group_array(json_array(users.number, users.user_id, users.display_name, users.acknowledges, users.epoch, users.acknowledged_through, users.purged_through, users.summed_through, coalesce((SELECT max(messages.seq) AS max_1
FROM messages
WHERE messages.mailbox = users.number), 0), max(coalesce((SELECT messages.lamport
FROM messages
WHERE messages.mailbox = users.number ORDER BY messages.seq DESC
LIMIT 1 OFFSET 0), 0), coalesce((SELECT max(messages.seq) AS max_2
FROM messages
WHERE messages.mailbox = -users.number), 0)), json((SELECT json_group_array(json_array(opened.number, opened.peer, opened.peer_name, opened.confirmed, opened.written, opened.active_at, opened.newest, opened.read_through, opened.unread, opened.hidden, opened.muted)) AS json_group_array_2
FROM (SELECT chats.number AS number, chats.peer AS peer, chats.peer_name AS peer_name, chats.confirmed AS confirmed, chats.written AS written, chats.active_at AS active_at, chats.newest AS newest, chats.read_through AS read_through, chats.unread AS unread, chats.hidden AS hidden, chats.muted AS muted
FROM chats
WHERE chats.user = users.number ORDER BY chats.number) AS opened)), json((SELECT json_group_array(json_array(sums.number, sums.newest, sums.active_at, sums.unread)) AS json_group_array_3
FROM (SELECT chats.number AS number, max(messages.seq) AS newest, max(messages.sent_at) AS active_at, sum(CAST(messages.seq > chats.read_through AS INTEGER)) AS unread
FROM messages JOIN chats ON chats.number = messages.chat AND chats.summed_through < messages.seq
WHERE messages.mailbox = users.number AND messages.seq > users.summed_through GROUP BY chats.number) AS sums)), json((SELECT json_group_array(acknowledged.seq) AS json_group_array_4
FROM acknowledged
WHERE acknowledged.mailbox = users.number)), json((SELECT json_group_array(json_array(blocks.peer, blocks.by_user, blocks.by_peer, blocks.read_through, blocks.withheld)) AS json_group_array_5
FROM blocks
WHERE blocks.user = users.number)), users.kept, users.banned, json((SELECT json_group_array(json_array(hook_calls.peer, hook_calls.since, hook_calls.due)) AS json_group_array_6
FROM hook_calls
WHERE hook_calls.user = users.number)))) AS json_group_array_1
FROM users
WHERE users.user_id IN (SELECT given.value
FROM json_each(CAST(? AS TEXT)) AS given)"""

HIGHEST_USER: Final = """\
SELECT max(users.number) AS max_1
FROM users"""

HIGHEST_CHAT: Final = """\
SELECT max(chats.number) AS max_1
FROM chats"""

HOOK_CALLS_DUE: Final = """\
SELECT json_group_array(json_array(due.user_id, due.peer)) AS json_group_array_1
FROM (SELECT users.user_id AS user_id, hook_calls.peer AS peer
FROM hook_calls JOIN users ON users.number = hook_calls.user
WHERE hook_calls.due <= ? ORDER BY hook_calls.due
LIMIT ? OFFSET 0) AS due"""

HOOK_CALLS_PENDING: Final = """\
SELECT json_array(count(*), min(hook_calls.since)) AS json_array_1
FROM hook_calls
WHERE hook_calls.due IS NOT NULL"""

UNTOLD: Final = """\
SELECT json_array(max(some.number), json_group_array(iif(EXISTS (SELECT messages.seq
FROM messages JOIN chats ON chats.number = messages.chat
WHERE messages.mailbox = some.number AND messages.seq > some.acknowledged_through AND chats.muted = 0 AND NOT (EXISTS (SELECT acknowledged.seq
FROM acknowledged
WHERE acknowledged.mailbox = messages.mailbox AND acknowledged.seq = messages.seq)) AND NOT (EXISTS (SELECT hook_calls.peer
FROM hook_calls
WHERE hook_calls.user = some.number AND hook_calls.peer = chats.peer))), some.user_id, NULL))) AS json_array_1
FROM (SELECT users.number AS number, users.user_id AS user_id, users.acknowledged_through AS acknowledged_through
FROM users
WHERE users.number > ? ORDER BY users.number
LIMIT 200 OFFSET 0) AS some"""

LOAD_CLOCK: Final = """\
SELECT json_array(clock.passed, clock.ran, clock.owed, clock.wall) AS json_array_1
FROM clock"""

SAVE_CLOCK: Final = """\
UPDATE clock SET passed=?, ran=?, owed=?, wall=?"""

MARK: Final = """\
INSERT INTO marks (number, passed, ran) SELECT last.number, max(?, (SELECT coalesce(max(marks.passed), -4611686018427387904) AS coalesce_1
FROM marks)) AS max_1, ? AS anon_1
FROM (SELECT max(messages.number) AS number
FROM messages) AS last
WHERE last.number > (SELECT coalesce(max(marks.number), 0) AS coalesce_2
FROM marks)"""

PAST: Final = """\
SELECT json_array((SELECT coalesce(max(marks.number), 0) AS coalesce_1
FROM marks
WHERE marks.passed <= ?), (SELECT coalesce(max(marks.number), 0) AS coalesce_2
FROM marks
WHERE marks.ran <= ?)) AS json_array_1"""

BITE: Final = """\
SELECT json_array(count(*), max(oldest.number)) AS json_array_1
FROM (SELECT messages.number AS number
FROM messages
WHERE messages.number > ? AND messages.number <= ? ORDER BY messages.number
LIMIT 200 OFFSET 0) AS oldest"""

BITTEN: Final = """\
SELECT json_group_array(json_array(past.mailbox, past.through, past.user_id)) AS json_group_array_1
FROM (SELECT messages.mailbox AS mailbox, max(messages.seq) AS through, users.user_id AS user_id
FROM messages LEFT OUTER JOIN users ON users.number = messages.mailbox
WHERE messages.number > ? AND messages.number <= ? AND (users.number IS NULL OR messages.seq <= users.acknowledged_through OR messages.number <= ?) GROUP BY messages.mailbox + 0) AS past"""

COUNT_OUT: Final = """\
UPDATE chats SET unread=(chats.unread - gone.count) FROM (SELECT known.number AS number, count(*) AS count
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq <= json_extract(given.value, '$[1]') JOIN users ON users.number = messages.mailbox JOIN chats AS known ON known.number = messages.chat AND messages.seq > known.read_through AND messages.seq <= max(users.summed_through, known.summed_through) GROUP BY known.number) AS gone WHERE chats.number = gone.number AND chats.unread > 0"""

RAISE_PURGED: Final = """\
UPDATE users SET purged_through=json_extract(given.value, '$[1]') FROM json_each(CAST(? AS TEXT)) AS given WHERE users.number = json_extract(given.value, '$[0]')"""

DELETE_THROUGH: Final = """\
DELETE FROM messages WHERE messages.number IN (SELECT messages.number
FROM json_each(CAST(? AS TEXT)) AS given JOIN messages ON messages.mailbox = json_extract(given.value, '$[0]') AND messages.seq <= json_extract(given.value, '$[1]'))"""

TRIM_MARKS: Final = """\
DELETE FROM marks WHERE marks.number > (SELECT coalesce(max(messages.number), 0) AS coalesce_1
FROM messages) OR marks.number < (SELECT min(messages.number) AS min_1
FROM messages)"""

STRANGERS: Final = """\
SELECT json_array(max(some.number), json_group_array(iif(some.left_at < ? AND NOT (EXISTS (SELECT chats.number
FROM chats
WHERE chats.user = some.number)) AND NOT (EXISTS (SELECT blocks.user
FROM blocks
WHERE blocks.user = some.number)) AND NOT (some.kept = 1 OR some.banned = 1), some.user_id, NULL))) AS json_array_1
FROM (SELECT users.number AS number, users.user_id AS user_id, users.left_at AS left_at, users.kept AS kept, users.banned AS banned
FROM users
WHERE users.number > ? ORDER BY users.number
LIMIT 1000 OFFSET 0) AS some"""

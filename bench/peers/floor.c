/* The floor: what a relay of chat messages costs when it does nothing else.
 *
 * One recv of whatever has come, and for each message two sends: the payload, as it is, to the partner, and MSG_ACK to the sender. No
 * JSON is parsed (the type and the ids are looked for as text), nothing is checked, and nothing is put together. What a server needs
 * beyond this is the price of what it is. HELLO, OPEN_CHAT and PING are answered as docs/protocol.md says; they are not measured.
 *
 * What it asks of its clients: "type" comes first, no id contains an escape, no message is fragmented or longer than 64 KiB.
 * What it leaves out: a MSG keeps the fields that its sender gave it, so it lacks "from" and "timestamp", and it goes to the user with
 * whom the last chat was opened, whatever its "to" says.
 *
 * Usage: floor [PORT]. Port 0, the default, is a free one. Prints one line when it listens; SIGTERM ends it.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    RECV_BYTES = 65536,
    /* The longest frame, and so the most that is kept of one that is not complete. */
    FRAME_BYTES = 65536 + 8,
    /* Answers that are put together here: a few ids and names. */
    ANSWER_BYTES = 8192,
    /* What may wait for a client that does not read; beyond it, the client is dropped. */
    OUTBOX_BYTES = 16 << 20,
    USER_BUCKETS = 1 << 16,
    EVENTS = 512,
    BACKLOG = 1024,
};

enum opcode { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum close_code { PROTOCOL_ERROR = 1002, UNSUPPORTED = 1003, TOO_BIG = 1009 };

/* A piece of text in somebody else's memory, without a zero at its end. */
struct text {
    const char *at;
    size_t length;
};

/* Somebody who said HELLO, or with whom somebody opened a chat. Users are never forgotten, so that pointers to them stay good. */
struct user {
    struct user *next_in_bucket;
    /* NULL when the user is not here. */
    struct connection *connection;
    /* Where this user's messages go. */
    struct user *partner;
    char *display_name;
    char *id;
};

struct connection {
    int fd;
    bool upgraded;
    /* A close frame has been sent: nothing is read any more, and the end comes when the outbox is empty. */
    bool closing;
    /* NULL before HELLO. */
    struct user *user;
    /* The beginning of a frame, or of the upgrade request, whose rest has not come. */
    char *pending;
    size_t pending_length;
    /* What the socket did not take at once. */
    char *outbox;
    size_t outbox_length;
};

static int epoll_fd;
static struct user *users[USER_BUCKETS];
/* What is being read; one byte more, because the upgrade request is read as a string. */
static char input[FRAME_BYTES + RECV_BYTES + 1];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *allocate(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);
    if (!memory)
        die("out of memory");
    return memory;
}

static char *copy_of(struct text text)
{
    char *copy = allocate(NULL, text.length + 1);
    memcpy(copy, text.at, text.length);
    copy[text.length] = 0;
    return copy;
}

/* -- Writing -- */

static void watch(struct connection *connection, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &event) < 0)
        die("epoll_ctl");
}

/* Send these bytes, or keep what the socket does not take. A connection that turns out to be dead is not closed here but when epoll says
 * so: it may be another one than that whose event is being handled. */
static void write_bytes(struct connection *connection, const char *bytes, size_t length)
{
    if (connection->closing)
        return;
    if (connection->outbox_length == 0) {
        ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                return;
            sent = 0;
        }
        if ((size_t)sent == length)
            return;
        bytes += sent;
        length -= sent;
        watch(connection, EPOLLIN | EPOLLOUT);
    }
    if (connection->outbox_length + length > OUTBOX_BYTES) {
        shutdown(connection->fd, SHUT_RDWR);
        return;
    }
    connection->outbox = allocate(connection->outbox, connection->outbox_length + length);
    memcpy(connection->outbox + connection->outbox_length, bytes, length);
    connection->outbox_length += length;
}

/* Send a frame whose payload has four bytes of room before it, for the header: that is where the mask of a client's frame was. */
static void write_frame(struct connection *connection, enum opcode opcode, char *payload, size_t length)
{
    size_t header = length < 126 ? 2 : 4;
    unsigned char *frame = (unsigned char *)payload - header;
    frame[0] = 0x80 | opcode;
    if (header == 2) {
        frame[1] = length;
    } else {
        frame[1] = 126;
        frame[2] = length >> 8;
        frame[3] = length & 0xff;
    }
    write_bytes(connection, (const char *)frame, header + length);
}

static void write_close(struct connection *connection, enum close_code code)
{
    char frame[4 + 2];
    frame[4] = code >> 8;
    frame[5] = code & 0xff;
    write_frame(connection, CLOSE, frame + 4, 2);
    connection->closing = true;
}

#define ANSWER(connection, ...)                                                                     \
    do {                                                                                            \
        char answer_[4 + ANSWER_BYTES];                                                             \
        int length_ = snprintf(answer_ + 4, ANSWER_BYTES, __VA_ARGS__);                             \
        if (length_ < ANSWER_BYTES)                                                                 \
            write_frame(connection, TEXT, answer_ + 4, length_);                                    \
        else                                                                                        \
            write_close(connection, TOO_BIG);                                                       \
    } while (0)

static void end(struct connection *connection)
{
    if (connection->user && connection->user->connection == connection)
        connection->user->connection = NULL;
    close(connection->fd); /* epoll forgets it by itself */
    free(connection->pending);
    free(connection->outbox);
    free(connection);
}

/* -- Users -- */

static struct user *user_of(struct text id)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < id.length; i++)
        hash = (hash ^ (unsigned char)id.at[i]) * 16777619u;
    struct user **bucket = &users[hash % USER_BUCKETS];
    for (struct user *user = *bucket; user; user = user->next_in_bucket)
        if (strlen(user->id) == id.length && memcmp(user->id, id.at, id.length) == 0)
            return user;
    struct user *user = allocate(NULL, sizeof *user);
    *user = (struct user){.next_in_bucket = *bucket, .id = copy_of(id)};
    return *bucket = user;
}

static void name_user(struct user *user, struct text display_name)
{
    free(user->display_name);
    user->display_name = copy_of(display_name);
}

/* -- Messages -- */

/* The string behind a key, which is given with its quotes and colon; empty when there is none. */
static struct text value_of(const char *json, size_t length, const char *key)
{
    struct text nothing = {"", 0};
    const char *end = json + length;
    const char *at = memmem(json, length, key, strlen(key));
    if (!at)
        return nothing;
    at += strlen(key);
    while (at < end && *at == ' ')
        at++;
    if (at == end || *at++ != '"')
        return nothing;
    const char *quote = memchr(at, '"', end - at);
    return quote ? (struct text){at, quote - at} : nothing;
}

static bool is(struct text text, const char *word)
{
    return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

static void on_message(struct connection *connection, char *payload, size_t length)
{
    static const char ack_head[] = "{\"type\":\"MSG_ACK\",\"data\":{\"message_id\":\"";
    static const char delivered[] = "\",\"status\":\"delivered\"}}";
    static const char stored[] = "\",\"status\":\"stored\"}}";
    struct text id = value_of(payload, length, "\"message_id\":");
    struct user *partner = connection->user ? connection->user->partner : NULL;
    bool here = partner && partner->connection;

    /* The acknowledgement is made first: what is sent to the partner is the buffer in which the id stands. */
    char ack[4 + sizeof ack_head + 256 + sizeof delivered];
    if (id.length > 256) {
        write_close(connection, TOO_BIG);
        return;
    }
    char *end = ack + 4;
    end = mempcpy(end, ack_head, sizeof ack_head - 1);
    end = mempcpy(end, id.at, id.length);
    end = here ? mempcpy(end, delivered, sizeof delivered - 1) : mempcpy(end, stored, sizeof stored - 1);

    if (here)
        write_frame(partner->connection, TEXT, payload, length);
    write_frame(connection, TEXT, ack + 4, end - (ack + 4));
}

static void on_hello(struct connection *connection, const char *payload, size_t length)
{
    struct user *user = user_of(value_of(payload, length, "\"user_id\":"));
    name_user(user, value_of(payload, length, "\"display_name\":"));
    if (connection->user && connection->user != user)
        connection->user->connection = NULL;
    connection->user = user;
    user->connection = connection;
    ANSWER(connection, "{\"type\":\"HELLO_ACK\",\"data\":{\"user_id\":\"%s\",\"status\":\"connected\"}}", user->id);
}

static void tell_opened(struct user *user, const char *smaller, const char *larger)
{
    if (user->connection)
        ANSWER(user->connection,
               "{\"type\":\"CHAT_OPENED\",\"data\":{\"chat_id\":\"%s:%s\",\"participants\":[\"%s\",\"%s\"],"
               "\"target_user_id\":\"%s\",\"target_display_name\":\"%s\"}}",
               smaller, larger, smaller, larger, user->partner->id, user->partner->display_name);
}

static void on_open_chat(struct connection *connection, const char *payload, size_t length)
{
    struct user *user = connection->user;
    if (!user) {
        write_close(connection, PROTOCOL_ERROR);
        return;
    }
    struct user *target = user_of(value_of(payload, length, "\"target_user_id\":"));
    if (!target->display_name)
        name_user(target, value_of(payload, length, "\"target_display_name\":"));
    user->partner = target;
    target->partner = user;
    bool ordered = strcmp(user->id, target->id) < 0;
    tell_opened(user, ordered ? user->id : target->id, ordered ? target->id : user->id);
    if (target != user)
        tell_opened(target, ordered ? user->id : target->id, ordered ? target->id : user->id);
}

static void on_text(struct connection *connection, char *payload, size_t length)
{
    struct text type = value_of(payload, length, "\"type\":");
    if (is(type, "MSG"))
        on_message(connection, payload, length);
    else if (is(type, "HELLO"))
        on_hello(connection, payload, length);
    else if (is(type, "OPEN_CHAT"))
        on_open_chat(connection, payload, length);
    else if (is(type, "PING")) {
        time_t now = time(NULL);
        struct tm utc;
        char timestamp[32];
        strftime(timestamp, sizeof timestamp, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
        ANSWER(connection, "{\"type\":\"PONG\",\"data\":{\"timestamp\":\"%s\"}}", timestamp);
    }
}

/* -- Frames -- */

static void on_frame(struct connection *connection, unsigned char first, char *payload, size_t length)
{
    switch (first) {
    case 0x80 | TEXT:
        on_text(connection, payload, length);
        break;
    case 0x80 | PING:
        write_frame(connection, PONG, payload, length);
        break;
    case 0x80 | PONG:
        break;
    case 0x80 | CLOSE:
        write_frame(connection, CLOSE, payload, length < 2 ? 0 : 2);
        connection->closing = true;
        break;
    default:
        write_close(connection, UNSUPPORTED);
    }
}

static void unmask(char *payload, size_t length, const unsigned char mask[4])
{
    uint64_t wide, word;
    memcpy(&wide, mask, 4);
    memcpy((char *)&wide + 4, mask, 4);
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, payload + at, 8);
        word ^= wide;
        memcpy(payload + at, &word, 8);
    }
    for (; at < length; at++)
        payload[at] ^= mask[at & 3];
}

/* Handle all complete frames; how many bytes they had. */
static size_t read_frames(struct connection *connection, char *bytes, size_t length)
{
    size_t at = 0;
    while (!connection->closing && length - at >= 2) {
        unsigned char *frame = (unsigned char *)bytes + at;
        size_t payload_length = frame[1] & 0x7f, header = 6;
        if (!(frame[1] & 0x80)) {
            write_close(connection, PROTOCOL_ERROR);
            break;
        }
        if (payload_length == 127) {
            write_close(connection, TOO_BIG);
            break;
        }
        if (payload_length == 126) {
            header = 8;
            if (length - at < header)
                break;
            payload_length = frame[2] << 8 | frame[3];
        }
        if (length - at < header + payload_length)
            break;
        char *payload = (char *)frame + header;
        unmask(payload, payload_length, frame + header - 4);
        at += header + payload_length;
        on_frame(connection, frame[0], payload, payload_length);
    }
    return at;
}

/* -- The upgrade -- */

static uint32_t rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

/* SHA-1 of at most 119 bytes, which is two blocks. */
static void sha1(const char *bytes, size_t length, unsigned char digest[20])
{
    unsigned char blocks[128] = {0};
    size_t size = length < 56 ? 64 : 128;
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(blocks, bytes, length);
    blocks[length] = 0x80;
    blocks[size - 2] = length * 8 >> 8;
    blocks[size - 1] = length * 8 & 0xff;
    for (unsigned char *block = blocks; block < blocks + size; block += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
        for (int i = 16; i < 80; i++)
            w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20)
                f = (b & c) | (~b & d), k = 0x5a827999;
            else if (i < 40)
                f = b ^ c ^ d, k = 0x6ed9eba1;
            else if (i < 60)
                f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
            else
                f = b ^ c ^ d, k = 0xca62c1d6;
            uint32_t next = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++)
        digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

/* Base64 of a SHA-1 digest: 28 characters and a zero. */
static void base64(const unsigned char digest[20], char text[29])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 20; i += 3) {
        uint32_t group = digest[i] << 16 | digest[i + 1] << 8 | (i + 2 < 20 ? digest[i + 2] : 0);
        for (int j = 0; j < 4; j++)
            *text++ = alphabet[group >> (18 - 6 * j) & 63];
    }
    text[-1] = '=';
    *text = 0;
}

/* Answer the upgrade request, if all of it has come; how many bytes it had. What is no upgrade of /ws is refused. */
static size_t read_upgrade(struct connection *connection, const char *bytes)
{
    static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    static const char header[] = "\r\nSec-WebSocket-Key:";
    enum { KEY = 24 };
    const char *body = strstr(bytes, "\r\n\r\n");
    if (!body)
        return 0;
    const char *key = strcasestr(bytes, header);
    if (key)
        for (key += sizeof header - 1; *key == ' ';)
            key++;
    if (strncmp(bytes, "GET /ws ", 8) != 0 || !key || key > body || strcspn(key, " \r") != KEY) {
        write_bytes(connection, refusal, sizeof refusal - 1);
        connection->closing = true;
    } else {
        unsigned char digest[20];
        char text[128], accept[29];
        int length = snprintf(text, sizeof text, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", KEY, key);
        sha1(text, length, digest);
        base64(digest, accept);
        char answer[256];
        length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n",
                          accept);
        write_bytes(connection, answer, length);
        connection->upgraded = true;
    }
    return body + 4 - bytes;
}

/* -- Events -- */

/* Read once and handle what is complete; false when the client has gone. */
static bool on_readable(struct connection *connection)
{
    size_t length = connection->pending_length, used = 0;
    if (length)
        memcpy(input, connection->pending, length);
    ssize_t received = recv(connection->fd, input + length, RECV_BYTES, 0);
    if (received <= 0)
        return received < 0 && (errno == EAGAIN || errno == EINTR);
    length += received;
    if (!connection->upgraded) {
        input[length] = 0;
        used = read_upgrade(connection, input);
    }
    if (connection->upgraded)
        used += read_frames(connection, input + used, length - used);
    size_t rest = connection->closing ? 0 : length - used;
    if (rest > FRAME_BYTES)
        return false; /* only an upgrade request can be that long */
    if (rest) {
        connection->pending = allocate(connection->pending, rest);
        memcpy(connection->pending, input + used, rest);
    }
    connection->pending_length = rest;
    return true;
}

/* Send what waits; false when the client has gone. */
static bool on_writable(struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->outbox, connection->outbox_length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    connection->outbox_length -= sent;
    memmove(connection->outbox, connection->outbox + sent, connection->outbox_length);
    if (connection->outbox_length == 0)
        watch(connection, EPOLLIN);
    return true;
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                return;
            die("accept");
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *connection = allocate(NULL, sizeof *connection);
        *connection = (struct connection){.fd = fd};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

int main(int count, char **arguments)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof address;
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, BACKLOG) < 0)
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll_ctl");
    printf("ready ws://127.0.0.1:%d/ws pid=%d\n", ntohs(address.sin_port), (int)getpid());
    fflush(stdout);

    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                accept_all(listener);
                continue;
            }
            bool alive = true;
            if (events[i].events & EPOLLOUT)
                alive = on_writable(connection);
            if (alive && events[i].events & ~EPOLLOUT)
                alive = !connection->closing && on_readable(connection);
            /* Who was told to close, and has been told everything before it, is done. */
            if (!alive || (connection->closing && connection->outbox_length == 0))
                end(connection);
            else if (connection->closing)
                watch(connection, EPOLLOUT);
        }
    }
}

/* What RabbitMQ itself can do: AMQP 0-9-1 on a bare socket, with nothing that a library would add.
 *
 *   bare consume PORT VHOST QUEUE COUNT BATCH PREFETCH
 *       takes COUNT messages, acknowledges them BATCH at a time, and ends
 *   bare confirm PORT VHOST QUEUE COUNT PROPERTIES BODY
 *       publishes the message in the two files COUNT times, awaiting each confirm, and prints the
 *       seconds that each took, one a line
 *
 * PORT is on 127.0.0.1, the user is guest.  Not for anything but benchmarks: it knows no errors
 * beyond "the broker said something else", and ends with them.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { METHOD = 1, HEADER = 2, BODY = 3, HEARTBEAT = 8, FRAME_END = 0xCE };
enum { FRAME_MAX = 131072, ROOM = 4 * FRAME_MAX };

/* Class and method in one number, as they stand on the wire. */
#define IS(class, method) ((uint32_t)(class) << 16 | (method))
enum {
    CONNECTION_START = IS(10, 10), CONNECTION_START_OK = IS(10, 11), CONNECTION_TUNE = IS(10, 30),
    CONNECTION_TUNE_OK = IS(10, 31), CONNECTION_OPEN = IS(10, 40), CONNECTION_OPEN_OK = IS(10, 41),
    CONNECTION_CLOSE = IS(10, 50), CONNECTION_CLOSE_OK = IS(10, 51), CHANNEL_OPEN = IS(20, 10),
    CHANNEL_OPEN_OK = IS(20, 11), BASIC_QOS = IS(60, 10), BASIC_QOS_OK = IS(60, 11),
    BASIC_CONSUME = IS(60, 20), BASIC_CONSUME_OK = IS(60, 21), BASIC_PUBLISH = IS(60, 40),
    BASIC_DELIVER = IS(60, 60), BASIC_ACK = IS(60, 80), CONFIRM_SELECT = IS(85, 10),
    CONFIRM_SELECT_OK = IS(85, 11)
};

static int connection;

static void fail(const char *what)
{
    fprintf(stderr, "bare: %s\n", what);
    exit(1);
}

/* -- receiving: frames straight out of one buffer ---------------------------------------------- */

static uint8_t received[ROOM];
static size_t received_from, received_to;

typedef struct {
    uint8_t type;
    uint32_t size;
    const uint8_t *payload; /* good until the next frame is asked for */
} frame;

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t read64(const uint8_t *at)
{
    return (uint64_t)read32(at) << 32 | read32(at + 4);
}

static void want(size_t bytes)
{
    while (received_to - received_from < bytes) {
        if (ROOM - received_from < FRAME_MAX + 8) {
            memmove(received, received + received_from, received_to - received_from);
            received_to -= received_from;
            received_from = 0;
        }
        ssize_t got = read(connection, received + received_to, ROOM - received_to);
        if (got <= 0)
            fail("the connection was closed");
        received_to += (size_t)got;
    }
}

static frame next_frame(void)
{
    frame next;
    do {
        want(7);
        next.type = received[received_from];
        next.size = read32(received + received_from + 3);
        want(next.size + 8);
        next.payload = received + received_from + 7;
        received_from += next.size + 8;
    } while (next.type == HEARTBEAT);
    return next;
}

static const uint8_t *expect(uint32_t method, const char *name)
{
    frame got = next_frame();
    if (got.type != METHOD || read32(got.payload) != method) {
        fprintf(stderr, "bare: wanted %s, got frame %d, method %u.%u: %.*s\n", name, got.type,
                read32(got.payload) >> 16, read32(got.payload) & 0xFFFF, (int)got.size,
                (const char *)got.payload);
        exit(1);
    }
    return got.payload + 4;
}

/* -- sending: frames gathered in one buffer, written together ----------------------------------- */

static uint8_t *sending;
static size_t sending_size, sending_room, frame_start;

static void put(const void *bytes, size_t count)
{
    if (sending_size + count > sending_room) {
        sending_room = (sending_size + count) * 2;
        sending = realloc(sending, sending_room);
        if (sending == NULL)
            fail("out of memory");
    }
    memcpy(sending + sending_size, bytes, count);
    sending_size += count;
}

static void put8(uint8_t value) { put(&value, 1); }

static void put16(uint16_t value)
{
    uint16_t wire = htons(value);
    put(&wire, 2);
}

static void put32(uint32_t value)
{
    uint32_t wire = htonl(value);
    put(&wire, 4);
}

static void put64(uint64_t value)
{
    put32((uint32_t)(value >> 32));
    put32((uint32_t)value);
}

static void put_short(const char *text)
{
    put8((uint8_t)strlen(text));
    put(text, strlen(text));
}

static void begin_frame(uint8_t type, uint16_t channel)
{
    put8(type);
    put16(channel);
    frame_start = sending_size;
    put32(0);
}

static void end_frame(void)
{
    uint32_t wire = htonl((uint32_t)(sending_size - frame_start - 4));
    memcpy(sending + frame_start, &wire, 4);
    put8(FRAME_END);
}

static void begin_method(uint16_t channel, uint32_t method)
{
    begin_frame(METHOD, channel);
    put32(method);
}

static void flush(void)
{
    for (size_t sent = 0; sent < sending_size;) {
        ssize_t wrote = write(connection, sending + sent, sending_size - sent);
        if (wrote <= 0)
            fail("the connection was closed");
        sent += (size_t)wrote;
    }
    sending_size = 0;
}

/* -- the conversation --------------------------------------------------------------------------- */

static void open_channel(int port, const char *vhost)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) != 0)
        fail("cannot connect");
    int on = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);

    static const char login[] = "\0guest\0guest";
    put("AMQP\0\0\11\1", 8);
    flush();
    expect(CONNECTION_START, "connection.start");
    begin_method(0, CONNECTION_START_OK);
    put32(0); /* client properties: none */
    put_short("PLAIN");
    put32(sizeof login - 1);
    put(login, sizeof login - 1);
    put_short("en_US");
    end_frame();
    flush();
    expect(CONNECTION_TUNE, "connection.tune");
    begin_method(0, CONNECTION_TUNE_OK);
    put16(1); /* channels */
    put32(FRAME_MAX);
    put16(0); /* no heartbeats */
    end_frame();
    begin_method(0, CONNECTION_OPEN);
    put_short(vhost);
    put_short("");
    put8(0);
    end_frame();
    flush();
    expect(CONNECTION_OPEN_OK, "connection.open-ok");
    begin_method(1, CHANNEL_OPEN);
    put_short("");
    end_frame();
    flush();
    expect(CHANNEL_OPEN_OK, "channel.open-ok");
}

/* In order: a socket that is merely shut may take the last acknowledgements with it. */
static void close_connection(void)
{
    begin_method(0, CONNECTION_CLOSE);
    put16(200);
    put_short("");
    put32(0);
    end_frame();
    flush();
    frame got;
    do
        got = next_frame();
    while (got.type != METHOD || read32(got.payload) != CONNECTION_CLOSE_OK);
    close(connection);
}

static void acknowledge(uint64_t tag)
{
    begin_method(1, BASIC_ACK);
    put64(tag);
    put8(1); /* and all before it */
    end_frame();
    flush();
}

/* Past the consumer's tag, a short string, stands the delivery's. */
static uint64_t delivery_tag(const uint8_t *deliver) { return read64(deliver + 1 + deliver[0]); }

static void consume(const char *queue, long count, long batch, int prefetch)
{
    begin_method(1, BASIC_QOS);
    put32(0);
    put16((uint16_t)prefetch);
    put8(0);
    end_frame();
    flush();
    expect(BASIC_QOS_OK, "basic.qos-ok");
    begin_method(1, BASIC_CONSUME);
    put16(0);
    put_short(queue);
    put_short("");
    put8(0);
    put32(0);
    end_frame();
    flush();
    expect(BASIC_CONSUME_OK, "basic.consume-ok");
    for (long taken = 1; taken <= count; taken++) {
        uint64_t tag = delivery_tag(expect(BASIC_DELIVER, "basic.deliver"));
        uint64_t left = read64(next_frame().payload + 4);
        while (left > 0)
            left -= next_frame().size;
        if (taken % batch == 0 || taken == count)
            acknowledge(tag);
    }
}

typedef struct {
    uint8_t *bytes;
    size_t size;
} blob;

static blob read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail("cannot read a file of the message");
    fseek(file, 0, SEEK_END);
    blob read = { .size = (size_t)ftell(file) };
    rewind(file);
    read.bytes = malloc(read.size + 1);
    if (fread(read.bytes, 1, read.size, file) != read.size)
        fail("cannot read a file of the message");
    fclose(file);
    return read;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void confirm(const char *queue, long count, blob properties, blob body)
{
    begin_method(1, CONFIRM_SELECT);
    put8(0);
    end_frame();
    flush();
    expect(CONFIRM_SELECT_OK, "confirm.select-ok");
    for (long number = 0; number < count; number++) {
        double begun = now();
        begin_method(1, BASIC_PUBLISH);
        put16(0);
        put_short("");
        put_short(queue);
        put8(1); /* mandatory: returned, and not confirmed in silence, if there is no queue */
        end_frame();
        begin_frame(HEADER, 1);
        put16(60);
        put16(0);
        put64(body.size);
        put(properties.bytes, properties.size);
        end_frame();
        begin_frame(BODY, 1);
        put(body.bytes, body.size);
        end_frame();
        flush();
        expect(BASIC_ACK, "basic.ack");
        printf("%.9f\n", now() - begun);
    }
}

int main(int argc, char **argv)
{
    if (argc != 8)
        fail("see the top of bare.c");
    open_channel(atoi(argv[2]), argv[3]);
    long count = atol(argv[5]);
    if (strcmp(argv[1], "consume") == 0)
        consume(argv[4], count, atol(argv[6]), atoi(argv[7]));
    else
        confirm(argv[4], count, read_file(argv[6]), read_file(argv[7]));
    close_connection();
    return 0;
}

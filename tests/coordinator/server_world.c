#include "tests/coordinator/server_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/address.h"
#include "proto/limits.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---- the world ---- */

static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

/* The fixture's vocabulary begins with three special tokens; then come GPT-2's letters for bytes, printable first. */
int32_t server_world_id(uint8_t byte)
{
    int32_t id = 3;
    for (uint32_t other = 0; other < 256; other++)
        if (is_printable(other) == is_printable(byte) ? other < byte : is_printable(other)) id++;
    return id;
}

void server_world_script(server_world_t *world, const char *text)
{
    uint32_t count = (uint32_t)strlen(text);
    assert_true(count > 0 && count <= SERVER_SCRIPT);
    for (uint32_t i = 0; i < count; i++)
        world->script[i] = text[i] == '\001' ? SERVER_EOS : server_world_id((uint8_t)text[i]);
    world->engine.script_count = count;
}

void server_world_init(server_world_t *world)
{
    *world = (server_world_t){.live_blocks = cot_memory_live_blocks(), .warnings = cot_log_warning_count()};
    cot_log_set_level(COT_LOG_WARN);
    temporary_make(world->folder);
    snprintf(world->listen, sizeof(world->listen), "unix:%s/s.sock", world->folder);
    assert_ok(model_tokenizer_load(COTERIE_SOURCE_DIR "/tests/fixtures/tokenizer/gpt2", &world->tokenizer));
    world->model = (model_config_t){.vocab = 1251, .eos_count = 1, .eos = {SERVER_EOS}};
    world->model.sampling.temperature = 0.5f;
    world->model.sampling.top_p = 0.75f;
    world->model.sampling.repetition_penalty = 1.25f;
    world->model.sampling.top_k = 11;
    world->engine = (coord_engine_t){.script = world->script,
                                     .eos = SERVER_EOS,
                                     .vocab = 1251,
                                     .max_context = 100000,
                                     .max_requests = FAKE_ENGINE_REQUESTS};
    world->config = (coord_server_config_t){.listen = world->listen,
                                            .max_connections = 16,
                                            .max_prompt_bytes = 1000,
                                            .max_context = 100000,
                                            .model = &world->model,
                                            .tokenizer = world->tokenizer,
                                            .model_name = "fake",
                                            .dtype = "float32",
                                            .ranks = 2};
    server_world_script(world, "abcdefgh");
}

static void *run(void *user)
{
    server_world_t *world = user;
    while (!atomic_load(&world->stop)) {
        bool worked;
        pthread_mutex_lock(&world->lock);
        coord_engine_poll(&world->engine, &worked); /* a fake failure is what its requests are told */
        cot_status_t status = coord_server_poll(world->server, 1);
        world->drained = coord_server_drained(world->server);
        pthread_mutex_unlock(&world->lock);
        if (status != COT_OK) abort();
        usleep(50);
    }
    return NULL;
}

void server_world_start(server_world_t *world)
{
    assert_ok(coord_server_create(&world->config, &world->server));
    world->address = coord_server_address(world->server);
    if (!world->loading) assert_ok(coord_server_attach(world->server, &world->engine));
    pthread_mutex_init(&world->lock, NULL);
    assert_int_equal(pthread_create(&world->thread, NULL, run, world), 0);
}

void server_world_attach(server_world_t *world)
{
    server_world_lock(world);
    assert_ok(coord_server_attach(world->server, &world->engine));
    server_world_unlock(world);
}

void server_world_stop(server_world_t *world)
{
    if (world->server == NULL) return;
    atomic_store(&world->stop, true);
    pthread_join(world->thread, NULL);
    coord_server_destroy(world->server);
    world->server = NULL;
    pthread_mutex_destroy(&world->lock);
}

void server_world_finish(server_world_t *world)
{
    server_world_stop(world);
    assert_int_equal(world->engine.live, 0);
    model_tokenizer_destroy(world->tokenizer);
    temporary_remove(world->folder);
    assert_int_equal(cot_log_warning_count(), world->warnings);
    assert_int_equal(cot_memory_live_blocks(), world->live_blocks);
}

void server_world_lock(server_world_t *world)
{
    pthread_mutex_lock(&world->lock);
}

void server_world_unlock(server_world_t *world)
{
    pthread_mutex_unlock(&world->lock);
}

void server_world_hold(server_world_t *world, bool hold)
{
    server_world_lock(world);
    world->engine.hold = hold;
    server_world_unlock(world);
}

void server_world_await_live(server_world_t *world, uint32_t live)
{
    cot_deadline_t deadline = cot_deadline_in_ms(5000);
    for (;;) {
        server_world_lock(world);
        uint32_t now = world->engine.live;
        server_world_unlock(world);
        if (now == live) return;
        if (cot_deadline_passed(deadline)) fail_msg("%u requests live, wanted %u", now, live);
        usleep(500);
    }
}

/* ---- a client made by hand ---- */

int raw_connect(const server_world_t *world)
{
    rpc_address_t address;
    assert_ok(rpc_address_parse(world->listen, &address));
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, address.path, sizeof(name.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    return fd;
}

void raw_send(int fd, const void *bytes, size_t count)
{
    const char *next = bytes;
    while (count > 0) {
        ssize_t sent = send(fd, next, count, MSG_NOSIGNAL);
        if (sent <= 0) return;
        next += sent;
        count -= (size_t)sent;
    }
}

void raw_send_envelope(int fd, const Coterie__Envelope *envelope)
{
    cot_buffer_t frame = {0};
    assert_ok(rpc_frame_append(envelope, &frame));
    raw_send(fd, frame.data, frame.size);
    cot_buffer_free(&frame);
}

void raw_hello(int fd, uint32_t version, const char *token)
{
    Coterie__Hello hello = COTERIE__HELLO__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    hello.has_version = 1;
    hello.version = version;
    hello.has_token = token != NULL;
    if (token != NULL) hello.token = (ProtobufCBinaryData){.data = (uint8_t *)token, .len = strlen(token)};
    envelope.body_case = COTERIE__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    raw_send_envelope(fd, &envelope);
}

int raw_admitted(const server_world_t *world)
{
    int fd = raw_connect(world);
    raw_hello(fd, RPC_PROTOCOL_VERSION, world->config.token);
    Coterie__Envelope *welcome = raw_receive(fd);
    assert_non_null(welcome);
    assert_int_equal(welcome->body_case, COTERIE__ENVELOPE__BODY_WELCOME);
    rpc_envelope_free(welcome);
    return fd;
}

void raw_generate(int fd, uint64_t id, uint32_t max_tokens)
{
    Coterie__Generate generate = COTERIE__GENERATE__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    generate.has_text = generate.has_max_tokens = generate.has_stream = 1;
    generate.text = (ProtobufCBinaryData){.data = (uint8_t *)"hi", .len = 2};
    generate.max_tokens = max_tokens;
    generate.stream = 1;
    envelope.has_id = 1;
    envelope.id = id;
    envelope.body_case = COTERIE__ENVELOPE__BODY_GENERATE;
    envelope.generate = &generate;
    raw_send_envelope(fd, &envelope);
}

void raw_simple(int fd, uint64_t id, Coterie__Envelope__BodyCase what)
{
    Coterie__Cancel cancel = COTERIE__CANCEL__INIT;
    Coterie__StatusRequest status = COTERIE__STATUS_REQUEST__INIT;
    Coterie__HealthRequest health = COTERIE__HEALTH_REQUEST__INIT;
    Coterie__Drain drain = COTERIE__DRAIN__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    envelope.has_id = 1;
    envelope.id = id;
    envelope.body_case = what;
    if (what == COTERIE__ENVELOPE__BODY_CANCEL) envelope.cancel = &cancel;
    if (what == COTERIE__ENVELOPE__BODY_STATUS_REQUEST) envelope.status_request = &status;
    if (what == COTERIE__ENVELOPE__BODY_HEALTH_REQUEST) envelope.health_request = &health;
    if (what == COTERIE__ENVELOPE__BODY_DRAIN) envelope.drain = &drain;
    raw_send_envelope(fd, &envelope);
}

static bool receive_all(int fd, uint8_t *bytes, size_t count)
{
    while (count > 0) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (poll(&poll_fd, 1, 5000) <= 0) fail_msg("the server said nothing within 5 s");
        ssize_t got = recv(fd, bytes, count, 0);
        if (got <= 0) return false;
        bytes += got;
        count -= (size_t)got;
    }
    return true;
}

Coterie__Envelope *raw_receive(int fd)
{
    uint8_t head[RPC_FRAME_HEAD_BYTES];
    size_t bytes = 0;
    if (!receive_all(fd, head, sizeof(head))) return NULL;
    assert_ok(rpc_frame_bytes(head, sizeof(head), RPC_REPLY_FRAME_BYTES, &bytes));
    uint8_t *body = cot_alloc(bytes);
    assert_true(receive_all(fd, body, bytes - sizeof(head)));
    Coterie__Envelope *envelope = NULL;
    assert_ok(rpc_envelope_unpack(body, bytes - sizeof(head), &envelope));
    cot_free(body);
    return envelope;
}

void raw_expect_error(int fd, uint64_t id, Coterie__Code code, const char *words)
{
    Coterie__Envelope *envelope = raw_receive(fd);
    assert_non_null(envelope);
    assert_int_equal(envelope->body_case, COTERIE__ENVELOPE__BODY_ERROR);
    assert_int_equal(envelope->id, id);
    if (strstr(envelope->error->message, words) == NULL)
        fail_msg("wanted \"%s\" in: %s", words, envelope->error->message);
    assert_int_equal(envelope->error->code, code);
    rpc_envelope_free(envelope);
}

void raw_expect_end(int fd)
{
    assert_null(raw_receive(fd));
    close(fd);
}

Coterie__Finish raw_collect(int fd, uint64_t id, cot_buffer_t *text)
{
    for (;;) {
        Coterie__Envelope *envelope = raw_receive(fd);
        assert_non_null(envelope);
        assert_int_equal(envelope->body_case, COTERIE__ENVELOPE__BODY_DELTA);
        const Coterie__Delta *delta = envelope->delta;
        bool ours = envelope->id == id, last = delta->has_finish;
        Coterie__Finish finish = delta->finish;
        if (ours) assert_ok(cot_buffer_append(text, delta->text.data, delta->text.len));
        rpc_envelope_free(envelope);
        if (ours && last) return finish;
    }
}

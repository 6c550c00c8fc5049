/* A server with a fake engine behind it, which runs in a thread of its own while a test talks to it. */
#ifndef TESTS_SERVER_WORLD_H
#define TESTS_SERVER_WORLD_H

#include "coordinator/server.h"
#include "proto/framing.h"
#include "tests/coordinator/fake_engine.h"
#include "tests/temporary.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SERVER_SCRIPT = 4096, SERVER_EOS = 2 };

typedef struct {
    coord_server_config_t config; /* what a test may change before it starts */
    bool loading;                 /* no engine is attached until server_world_attach */
    char folder[256], listen[300];
    const char *address; /* for clients */
    model_config_t model;
    model_tokenizer_t *tokenizer; /* the fixture "gpt2": ids from 3 on are the bytes, 2 is </s> */
    int32_t script[SERVER_SCRIPT];
    coord_engine_t engine; /* locked: see server_world_lock */
    coord_server_t *server;
    pthread_t thread;
    pthread_mutex_t lock;
    atomic_bool stop;
    bool drained; /* as the server last said */
    size_t live_blocks;
    unsigned warnings;
} server_world_t;

void server_world_init(server_world_t *world);
/* The answer from now on: one token for each byte; '\001' stands for </s>. */
void server_world_script(server_world_t *world, const char *text);
void server_world_start(server_world_t *world);
void server_world_attach(server_world_t *world);
/* The server ends; finish does it, too. */
void server_world_stop(server_world_t *world);
/* Stops and destroys everything; fails on a leak or an unexpected warning. */
void server_world_finish(server_world_t *world);
/* Between the two nothing moves in the server's thread. */
void server_world_lock(server_world_t *world);
void server_world_unlock(server_world_t *world);
void server_world_hold(server_world_t *world, bool hold);
/* Waits up to 5 s until so many requests live in the engine. */
void server_world_await_live(server_world_t *world, uint32_t live);
int32_t server_world_id(uint8_t byte);

/* ---- a client made by hand ---- */

int raw_connect(const server_world_t *world);
void raw_send(int fd, const void *bytes, size_t count); /* a peer that hung up is no failure */
void raw_send_envelope(int fd, const Coterie__Envelope *envelope);
void raw_hello(int fd, uint32_t version, const char *token);
int raw_admitted(const server_world_t *world); /* connected and welcome */
/* A Generate of the text "hi"; streamed. */
void raw_generate(int fd, uint64_t id, uint32_t max_tokens);
void raw_simple(int fd, uint64_t id, Coterie__Envelope__BodyCase what); /* Cancel, …Request or Drain */
/* The next envelope within 5 s; NULL: the server closed. Free with rpc_envelope_free. */
Coterie__Envelope *raw_receive(int fd);
/* An Error with this id and code, and these words in its sentence. */
void raw_expect_error(int fd, uint64_t id, Coterie__Code code, const char *words);
void raw_expect_end(int fd); /* and closes it */
/* Deltas of call `id` up to the last; appends their text. Deltas of other calls are dropped. Returns how it ended. */
Coterie__Finish raw_collect(int fd, uint64_t id, cot_buffer_t *text);

#endif

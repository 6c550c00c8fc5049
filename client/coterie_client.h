/* libcoterie-client: generate text through a running `coterie serve`.
 *
 * A client is one connection. Its calls block, each with a deadline; one thread at a time may use a client, but
 * coterie_client_cancel may be called from any thread and from a signal handler. Functions return 0 or a negative
 * coterie_client_status_t; coterie_client_error() then holds a sentence that says what to do. Structs begin with their
 * size: initialise them with the macros below, so that later versions can add fields. */
#ifndef COTERIE_CLIENT_H
#define COTERIE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define COTERIE_CLIENT_API __attribute__((visibility("default")))
#else
#define COTERIE_CLIENT_API
#endif

typedef struct coterie_client coterie_client_t;

typedef enum {
    COTERIE_CLIENT_OK = 0,
    COTERIE_CLIENT_INVALID = -1,   /* an argument or a sampling parameter makes no sense */
    COTERIE_CLIENT_NOT_FOUND = -2, /* a file is missing */
    COTERIE_CLIENT_FORMAT = -3,
    COTERIE_CLIENT_UNSUPPORTED = -4,
    COTERIE_CLIENT_MISMATCH = -5,
    COTERIE_CLIENT_LIMIT = -6,      /* the prompt is over the context, or another limit */
    COTERIE_CLIENT_BUSY = -7,       /* the server cannot take the request now, or is about to end: try again later */
    COTERIE_CLIENT_AUTH = -8,       /* the access token or the certificate was refused */
    COTERIE_CLIENT_CANCELLED = -9,  /* coterie_client_cancel, or on_delta */
    COTERIE_CLIENT_PEER_LOST = -20, /* no server, or it is gone */
    COTERIE_CLIENT_TIMEOUT = -21,
    COTERIE_CLIENT_PROTOCOL = -22, /* what answers is no such server, or of another release */
    COTERIE_CLIENT_DEVICE = -40,
    COTERIE_CLIENT_NO_MEMORY = -60,
    COTERIE_CLIENT_IO = -61,
    COTERIE_CLIENT_INTERNAL = -63
} coterie_client_status_t;

/* The sentence of this thread's last failure; "" if there was none. Valid until the thread's next call. */
COTERIE_CLIENT_API const char *coterie_client_error(void);

/* ---- connection ---- */

typedef struct {
    size_t size;
    const char *address; /* unix:PATH or HOST:PORT; NULL or "": where `coterie serve` listens by default */
    const char *token;   /* access token; NULL: none */
    const char *tls_ca;  /* PEM file with the certificates to trust: talk TLS; NULL or "": no TLS */
    int64_t timeout_ms;  /* to connect; 0: 10 s */
} coterie_client_options_t;
#define COTERIE_CLIENT_OPTIONS_INIT                           \
    {                                                         \
        sizeof(coterie_client_options_t), NULL, NULL, NULL, 0 \
    }

COTERIE_CLIENT_API int coterie_client_connect(const coterie_client_options_t *options, coterie_client_t **client_out);
COTERIE_CLIENT_API void coterie_client_close(coterie_client_t *client); /* NULL is allowed */

/* What the server said of itself. Valid as long as the client. */
COTERIE_CLIENT_API const char *coterie_client_model(const coterie_client_t *client);
COTERIE_CLIENT_API const char *coterie_client_server(const coterie_client_t *client);
COTERIE_CLIENT_API uint32_t coterie_client_vocabulary(const coterie_client_t *client);

/* ---- generate ---- */

/* The likeliest tokens at one position, likeliest first. */
typedef struct {
    uint32_t count;
    const int32_t *tokens;
    const float *logprobs;
} coterie_client_top_t;

/* A piece of the answer. Valid until on_delta returns. Text is whole UTF-8 characters, is not terminated, may hold
 * U+0000, and may come later than its tokens. */
typedef struct {
    size_t size;
    const char *text;
    size_t text_bytes;
    uint32_t count; /* tokens */
    const int32_t *tokens;
    const float *logprobs;
    const coterie_client_top_t *tops; /* [count], or NULL if none were asked for */
} coterie_client_delta_t;

/* Which of a request's fields are set; the model's defaults hold for the others. */
#define COTERIE_CLIENT_TEMPERATURE (1U << 0)
#define COTERIE_CLIENT_TOP_K (1U << 1)
#define COTERIE_CLIENT_TOP_P (1U << 2)
#define COTERIE_CLIENT_MIN_P (1U << 3)
#define COTERIE_CLIENT_REPETITION_PENALTY (1U << 4)
#define COTERIE_CLIENT_SEED (1U << 5)
#define COTERIE_CLIENT_MAX_TOKENS (1U << 6)

typedef struct {
    size_t size;
    /* The prompt: text (UTF-8, `text_bytes` of it) or token ids. It is sent as it is: no chat template. */
    const char *text;
    size_t text_bytes;
    const int32_t *tokens;
    uint32_t token_count;
    int no_special; /* do not add the tokenizer's special tokens to the text */
    /* Tokens that an earlier call with the same prompt, sampling and seed has delivered: the answer is the rest. */
    const int32_t *resume;
    uint32_t resume_count;
    uint32_t set; /* COTERIE_CLIENT_… of those below */
    float temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k, max_tokens; /* max_tokens: in all, with those in `resume`; unset: what the context holds */
    uint64_t seed;
    uint32_t logprobs; /* so many of the likeliest tokens with each token */
    int ignore_eos;
    const char *const *stops; /* [stop_count]: the text ends before the first of these */
    uint32_t stop_count;
    int at_once;                                                      /* one delta at the end in place of many */
    int64_t timeout_ms;                                               /* of the whole call; 0: none */
    int (*on_delta)(void *user, const coterie_client_delta_t *delta); /* other than 0: cancel */
    void (*on_loading)(void *user,
                       double progress); /* the server still loads the model; the call waits. NULL: silent */
    void *user;
} coterie_client_request_t;

typedef enum {
    COTERIE_CLIENT_FINISH_NONE = 0, /* the call failed */
    COTERIE_CLIENT_FINISH_STOP = 1,
    COTERIE_CLIENT_FINISH_EOS = 2,
    COTERIE_CLIENT_FINISH_LENGTH = 3,
    COTERIE_CLIENT_FINISH_CANCELLED = 4
} coterie_client_finish_t;

typedef struct {
    size_t size;
    coterie_client_finish_t finish;
    uint64_t seed; /* drawn by the server if the request set none */
    uint32_t prompt_tokens, generated_tokens;
} coterie_client_result_t;

/* Zeroes, and the size. */
COTERIE_CLIENT_API void coterie_client_request_init(coterie_client_request_t *request);
/* `result_out` (may be NULL; set its size) is filled as far as known, whatever is returned. */
COTERIE_CLIENT_API int coterie_client_generate(coterie_client_t *client, const coterie_client_request_t *request,
                                               coterie_client_result_t *result_out);
/* Ends the generate that runs, or else the next one: on the server too. Safe in signal handlers and other threads. */
COTERIE_CLIENT_API void coterie_client_cancel(coterie_client_t *client);
/* "stop", "eos", "length", "cancelled" or "none". */
COTERIE_CLIENT_API const char *coterie_client_finish_name(coterie_client_finish_t finish);

/* ---- the server ---- */

typedef enum {
    COTERIE_CLIENT_LOADING = 1,
    COTERIE_CLIENT_READY = 2,
    COTERIE_CLIENT_DRAINING = 3
} coterie_client_state_t;

COTERIE_CLIENT_API int coterie_client_health(coterie_client_t *client, int64_t timeout_ms,
                                             coterie_client_state_t *state_out, double *progress_out);
/* One JSON object, terminated; free it with coterie_client_free. */
COTERIE_CLIENT_API int coterie_client_status(coterie_client_t *client, int64_t timeout_ms, char **json_out);
COTERIE_CLIENT_API void coterie_client_free(char *json);
/* Asks the server to finish its requests and end. */
COTERIE_CLIENT_API int coterie_client_drain(coterie_client_t *client, int64_t timeout_ms, uint32_t *unfinished_out);
/* Waits until the server has ended. */
COTERIE_CLIENT_API int coterie_client_wait_end(coterie_client_t *client, int64_t timeout_ms);

#ifdef __cplusplus
}
#endif

#endif

/* What the coordinator and the workers say to each other: setup, steps, results. Flat little-endian records (all our
 * machines are), written and read through this file alone; every count is checked before a pointer is handed out. The
 * decoded views borrow the message's bytes. */
#ifndef RPC_STEP_H
#define RPC_STEP_H

#include "base/buffer.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define RPC_STEP_MAGIC 0x50455443U /* "CTEP" */
#define RPC_STEP_VERSION 1U
#define RPC_TOP_LOGPROBS 20    /* as KERN_TOP_LOGPROBS; checked where both are seen */
#define RPC_TOKEN_SAMPLED (-1) /* in a run's tokens: the token this sequence drew in the step before */

/* ---- coordinator -> worker ---- */

typedef enum { RPC_STEP_RUN = 1, RPC_STEP_STOP = 2 } rpc_step_kind_t;

#define RPC_RUN_SAMPLE 1U /* draw the next token after the run's last row */
#define RPC_RUN_SCORE 2U  /* logprob of each row's next token, and the likeliest token */
#define RPC_RUN_LOGITS 4U /* with SCORE: the logits of every row too */
#define RPC_RUN_TRACE 8U  /* return the routing of every row */

/* A run of rows of one sequence on its home worker. */
typedef struct {
    uint64_t sequence;    /* unique for the life of the job */
    uint32_t home;        /* worker index */
    uint32_t slot;        /* < max_sequences: the sequence's place on its worker while it runs */
    uint32_t position;    /* of the first row; 0 starts the sequence anew in its slot */
    uint32_t rows;        /* in this step */
    uint32_t token_begin; /* into tokens: `rows` of them */
    uint32_t block_begin; /* into blocks: ceil((position + rows) / 16) of them */
    uint32_t flags;
    int32_t next_token; /* with SCORE: the token after the last row; -1: none */
    uint64_t seed;
    float temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k, top_logprobs;
} rpc_run_t;

typedef struct {
    uint32_t magic, version, kind, runs;
    uint64_t step;
    uint32_t tokens, blocks;
} rpc_step_header_t;

typedef struct {
    rpc_step_header_t header;
    const rpc_run_t *run;  /* [runs] */
    const int32_t *token;  /* [tokens] */
    const uint32_t *block; /* [blocks] */
} rpc_step_t;

cot_status_t rpc_step_encode(const rpc_step_t *step, cot_buffer_t *out);
cot_status_t rpc_step_decode(const void *bytes, size_t count, rpc_step_t *step_out);

/* ---- worker -> coordinator ---- */

typedef struct {
    uint64_t sequence;
    uint32_t position; /* of the drawn token, or of a scored row */
    int32_t token;     /* drawn; with SCORE the likeliest token after the row */
    float logprob;     /* of the drawn token; with SCORE of the row's next token (0 if there is none) */
    uint32_t flags;    /* RPC_RUN_SAMPLE or RPC_RUN_SCORE */
    uint32_t tops;     /* how many of top_* count */
    int32_t top_token[RPC_TOP_LOGPROBS];
    float top_logprob[RPC_TOP_LOGPROBS];
} rpc_drawn_t;

/* Routing of one row, all MoE layers: experts I16 [layers, K], weights (IEEE half) [layers, K]. */
typedef struct {
    uint64_t sequence;
    uint32_t position;
    int32_t token;
} rpc_routed_t;

typedef struct {
    uint32_t magic, version, rank, status; /* status: 0, or -cot_status_t with `text` */
    uint64_t step;
    uint32_t drawn, routed, route_width; /* route_width = MoE layers x K */
    uint32_t logits_rows, vocab, text_bytes;
    int64_t compute_ns, wait_ns;                         /* of this step */
    uint64_t dispatch_bytes, combine_bytes, assignments; /* of this step; assignments computed here */
} rpc_result_header_t;

typedef struct {
    rpc_result_header_t header;
    const rpc_drawn_t *drawn;
    const rpc_routed_t *routed;
    const int16_t *experts;  /* [routed, route_width] */
    const uint16_t *weights; /* [routed, route_width] */
    const float *logits;     /* [logits_rows, vocab]: rows of `drawn` whose run asked for them, in order */
    const char *text;        /* [text_bytes], not terminated */
} rpc_result_t;

cot_status_t rpc_result_encode(const rpc_result_t *result, cot_buffer_t *out);
cot_status_t rpc_result_decode(const void *bytes, size_t count, rpc_result_t *result_out);

/* ---- start: worker -> coordinator on the setup tag ---- */

typedef enum { RPC_START_HELLO = 1, RPC_START_PROGRESS = 2, RPC_START_READY = 3 } rpc_start_kind_t;

typedef struct {
    uint32_t magic, version, kind, rank;
    uint32_t status; /* 0, or -cot_status_t with `text` */
    uint32_t isa;    /* HELLO: best here (kern_isa_t); READY: in use */
    uint32_t threads, node;
    uint64_t node_memory_bytes, weight_bytes, mapped_bytes, kv_bytes, buffer_bytes;
    uint32_t kv_blocks; /* READY: of each layer */
    float progress;     /* 0 … 1 */
    char text[512];
} rpc_start_t;

cot_status_t rpc_start_decode(const void *bytes, size_t count, rpc_start_t *start_out);

/* Coordinator -> worker on the setup tag: what to load and to do. LEAVE: start failed elsewhere. MEASURE: what
 * proto/measure.h asks for. */
typedef enum { RPC_GO_LEAVE, RPC_GO_RUN, RPC_GO_MEASURE } rpc_go_t;

typedef struct {
    const void *settings; /* cot_settings_pack */
    const char *plan;     /* plan JSON, "" for contiguous */
    size_t settings_bytes, plan_bytes;
    uint32_t isa;
    uint32_t go; /* rpc_go_t */
} rpc_setup_t;

cot_status_t rpc_setup_encode(const rpc_setup_t *setup, cot_buffer_t *out);
cot_status_t rpc_setup_decode(const void *bytes, size_t count, rpc_setup_t *setup_out);

#endif

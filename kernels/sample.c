#include "kernels/kern_int.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

void kern_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t left = (uint64_t)0xD2511F53U * c[0], right = (uint64_t)0xCD9E8D57U * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)right;
        c[2] = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)left;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

/* Uniform in [0, 1), with 53 bits. */
static double uniform(uint64_t seed, uint32_t position)
{
    const uint32_t counter[4] = {position, 0, 0, 0}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t bits[4];
    kern_philox(counter, key, bits);
    return (double)((((uint64_t)bits[0] << 32) | bits[1]) >> 11) * 0x1p-53;
}

static float least_if_nan(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* Whether token a stands before token b among the candidates. */
static bool before(const float *logits, uint32_t a, uint32_t b)
{
    float left = least_if_nan(logits[a]), right = least_if_nan(logits[b]);
    return left > right || (left == right && a < b);
}

/* exp((logit - max) / temperature): 1 at the maximum, infinite ones included; `logit` <= `max`. */
static double share(float logit, float max, double temperature)
{
    float clean = least_if_nan(logit);
    return clean == max ? 1.0 : exp(((double)clean - (double)max) / temperature);
}

/* ---- logprobs of the raw logits ---- */

static void list_top(const kern_draw_t *draw, uint32_t vocab, uint32_t wanted, int32_t *top)
{
    for (uint32_t i = 0; i < wanted; i++) top[i] = -1;
    kern_top_k(draw->logits, vocab, wanted < vocab ? wanted : vocab, top);
}

static void score(const kern_draw_t *draw, uint32_t vocab, kern_drawn_t *drawn)
{
    uint32_t wanted = draw->top_logprobs < KERN_TOP_LOGPROBS ? draw->top_logprobs : KERN_TOP_LOGPROBS;
    if (wanted == 0) wanted = 1;
    list_top(draw, vocab, wanted, drawn->top_token);
    float max = least_if_nan(draw->logits[drawn->top_token[0]]);
    double sum = 0;
    for (uint32_t id = 0; id < vocab; id++) sum += share(draw->logits[id], max, 1.0);
    double log_sum = log(sum);
    for (uint32_t i = 0; i <= wanted; i++) { /* the last pass is the drawn token's */
        int32_t token = i < wanted ? drawn->top_token[i] : drawn->token;
        float *out = i < wanted ? &drawn->top_logprob[i] : &drawn->logprob;
        *out = -INFINITY;
        if (token < 0) continue;
        float logit = least_if_nan(draw->logits[token]);
        *out = (float)((logit == max ? 0.0 : (double)logit - (double)max) - log_sum);
    }
}

/* ---- candidates, likeliest first ---- */

/* A heap of ids over logits. What is taken from it gathers at the array's end, in reverse: id[vocab - 1] is the
 * likeliest. */
typedef struct {
    const float *logits;
    uint32_t *id;
    uint32_t vocab, left;
} heap_t;

static void sift(const heap_t *heap, uint32_t at)
{
    uint32_t moving = heap->id[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= heap->left) break;
        if (child + 1 < heap->left && before(heap->logits, heap->id[child + 1], heap->id[child])) child++;
        if (!before(heap->logits, heap->id[child], moving)) break;
        heap->id[at] = heap->id[child];
        at = child;
    }
    heap->id[at] = moving;
}

static void heapify(heap_t *heap)
{
    for (uint32_t i = 0; i < heap->vocab; i++) heap->id[i] = i;
    heap->left = heap->vocab;
    for (uint32_t at = heap->vocab / 2; at-- > 0;) sift(heap, at);
}

/* The n-th likeliest candidate, n < vocab; takes from the heap as far as needed. */
static uint32_t candidate(heap_t *heap, uint32_t n)
{
    while (heap->vocab - heap->left <= n) {
        uint32_t first = heap->id[0];
        heap->left--;
        heap->id[0] = heap->id[heap->left];
        heap->id[heap->left] = first;
        if (heap->left > 0) sift(heap, 0);
    }
    return heap->id[heap->vocab - 1 - n];
}

/* ---- the draw ---- */

/* Every distinct token of the history once: the penalty is taken from the raw logit, so a second time changes nothing.
 */
static const float *penalised(const kern_draw_t *draw, uint32_t vocab, float *work)
{
    float penalty = draw->repetition_penalty;
    if (penalty == 1.0f || draw->history_tokens == 0) return draw->logits;
    for (uint32_t id = 0; id < vocab; id++) work[id] = draw->logits[id];
    for (uint32_t i = 0; i < draw->history_tokens; i++) {
        int32_t token = draw->history[i];
        if (token < 0 || (uint32_t)token >= vocab) continue;
        float logit = draw->logits[token];
        work[token] = logit < 0 ? logit * penalty : logit / penalty;
    }
    return work;
}

/* How many candidates top-k, top-p and min-p leave, and the sum of their shares. */
static uint32_t keep(const kern_draw_t *draw, heap_t *heap, double *kept_sum)
{
    uint32_t most = draw->top_k > 0 && draw->top_k < heap->vocab ? draw->top_k : heap->vocab;
    float max = least_if_nan(heap->logits[candidate(heap, 0)]);
    double total = 0;
    if (most < heap->vocab) {
        for (uint32_t n = 0; n < most; n++) total += share(heap->logits[candidate(heap, n)], max, draw->temperature);
    } else {
        for (uint32_t id = 0; id < heap->vocab; id++) total += share(heap->logits[id], max, draw->temperature);
    }
    *kept_sum = total;
    bool top_p = draw->top_p<1.0f, min_p = draw->min_p> 0.0f;
    if (!top_p && !min_p) return most;

    double sum = 0;
    uint32_t kept = 0;
    for (; kept < most; kept++) {
        double next = share(heap->logits[candidate(heap, kept)], max, draw->temperature);
        if (kept > 0 && top_p && sum >= (double)draw->top_p * total) break;
        if (kept > 0 && min_p && next < (double)draw->min_p) break;
        sum += next;
    }
    *kept_sum = sum;
    return kept;
}

static int32_t draw_token(const kern_draw_t *draw, heap_t *heap)
{
    double kept_sum;
    uint32_t kept = keep(draw, heap, &kept_sum);
    float max = least_if_nan(heap->logits[candidate(heap, 0)]);
    double target = uniform(draw->seed, draw->position) * kept_sum, sum = 0;
    uint32_t chosen = candidate(heap, 0);
    for (uint32_t n = 0; n < kept; n++) {
        uint32_t id = candidate(heap, n);
        double next = share(heap->logits[id], max, draw->temperature);
        if (next <= 0) break; /* so are all after it: rounding has carried the target past the sum */
        chosen = id;
        sum += next;
        if (sum > target) break;
    }
    return (int32_t)chosen;
}

static int32_t likeliest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t id = 1; id < vocab; id++)
        if (before(logits, id, best)) best = id;
    return (int32_t)best;
}

size_t kern_sample_scratch_bytes(uint32_t vocab)
{
    return (size_t)vocab * (sizeof(float) + sizeof(uint32_t));
}

void kern_sample_one(const kern_draw_t *draw, uint32_t vocab, void *scratch, kern_drawn_t *drawn_out)
{
    assert(vocab > 0 && draw->forced < (int32_t)vocab);
    if (draw->forced >= 0) {
        drawn_out->token = draw->forced;
    } else {
        const float *logits = penalised(draw, vocab, scratch);
        if (draw->temperature > 0) {
            heap_t heap = {.logits = logits, .id = (uint32_t *)scratch + vocab, .vocab = vocab};
            heapify(&heap);
            drawn_out->token = draw_token(draw, &heap);
        } else {
            drawn_out->token = likeliest(logits, vocab);
        }
    }
    score(draw, vocab, drawn_out);
}

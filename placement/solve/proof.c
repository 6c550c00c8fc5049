#include "placement/solve/proof.h"

#include "base/memory.h"

#include <pthread.h>
#include <stdio.h>

struct solve_proof {
    solve_proof_config_t config;
    pthread_t thread;
    bool running;
    atomic_bool stop;
    solve_bound_t *bound;
    cot_status_t status;
    char fault[512]; /* an error's sentence belongs to its thread */
};

static void *run(void *argument)
{
    solve_proof_t *proof = argument;
    const solve_bound_config_t config = {.deadline = proof->config.deadline,
                                         .stop = &proof->stop,
                                         .better = proof->config.better,
                                         .user = proof->config.user};
    proof->status = solve_bound_create(proof->config.problem, &config, &proof->bound);
    if (proof->status != COT_OK) snprintf(proof->fault, sizeof(proof->fault), "%s", cot_error_text());
    return NULL;
}

cot_status_t solve_proof_start(const solve_proof_config_t *config, solve_proof_t **proof_out)
{
    solve_proof_t *proof = cot_calloc(1, sizeof(*proof));
    if (proof == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a proof");
    proof->config = *config;
    if (pthread_create(&proof->thread, NULL, run, proof) != 0) {
        cot_free(proof);
        return cot_fail(COT_ERR_NO_MEMORY, "no thread for a proof could be started");
    }
    proof->running = true;
    *proof_out = proof;
    return COT_OK;
}

static void join(solve_proof_t *proof, bool hurry)
{
    if (hurry) atomic_store_explicit(&proof->stop, true, memory_order_relaxed);
    if (proof->running) pthread_join(proof->thread, NULL);
    proof->running = false;
}

cot_status_t solve_proof_finish(solve_proof_t *proof, bool hurry, solve_bound_t **bound_out)
{
    join(proof, hurry);
    if (proof->status != COT_OK) return cot_fail(proof->status, "%s", proof->fault);
    *bound_out = proof->bound;
    proof->bound = NULL;
    return COT_OK;
}

void solve_proof_destroy(solve_proof_t *proof)
{
    if (proof == NULL) return;
    join(proof, true);
    solve_bound_destroy(proof->bound);
    cot_free(proof);
}

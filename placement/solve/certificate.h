/* The dual values that prove a bound, as a file (*.cert.safetensors, format coterie.certificate/1, docs/formats.md). */
#ifndef SOLVE_CERTIFICATE_H
#define SOLVE_CERTIFICATE_H

#include "placement/solve/bound.h"

/* A level of the file: costs are at least the sum of `weight` over the levels whose groups part two ranks. */
typedef struct {
    int64_t weight;
    int32_t *group;          /* [ranks] */
    bool gram;               /* proved by `diagonal`; else by the duals */
    int64_t *before, *after; /* [layers-1, experts], or NULL */
} solve_certificate_level_t;

/* Owns its arrays. Nothing in it is believed: check.h does the sums. */
typedef struct {
    uint32_t layers, experts, ranks, levels;
    solve_certificate_level_t level[SOLVE_LEVELS_MAX];
    int64_t *diagonal, centre; /* [layers, experts], or NULL; in 1 / SOLVE_GRAM_SCALE */
} solve_certificate_t;

cot_status_t solve_certificate_save(const solve_bound_t *bound, const char *objective, const char *path);
/* COT_ERR_FORMAT for a file that is no certificate, by what is wrong with it. */
cot_status_t solve_certificate_load(const char *path, solve_certificate_t **certificate_out);
void solve_certificate_destroy(solve_certificate_t *certificate);

#endif

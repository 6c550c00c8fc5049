/* How strongly experts go together, beyond what their loads alone would give. */
#ifndef PLACE_STRENGTH_H
#define PLACE_STRENGTH_H

#include <stdint.h>

/* strength: the share of the pairs above independence, sum over cells of max(0, observed - expected) / all pairs (the
 * total variation distance between the two distributions), from 0 to 1.
 * chance: what independence itself would show in that many pairs, the mean of Poisson counts above their expectation. A
 * strength near its chance level says nothing. */
typedef struct {
    double strength, chance;
} place_strength_t;

/* Transitions between two layers, [experts, experts]; expected = row sum x column sum / all. Zeros if there are none.
 */
place_strength_t place_strength_transition(const int64_t *pairs, uint32_t experts, double *work);

/* Pairs of different experts of one token in a layer: the cells above the diagonal of a symmetric [experts, experts].
 * expected[e][f] = a[e] a[f], with a such that every expert has the pairs that it has (quasi-independence: the diagonal
 * is impossible); `a` is fitted by at most 500 proportional steps. */
place_strength_t place_strength_coactivation(const int64_t *pairs, uint32_t experts, double *work);

#endif

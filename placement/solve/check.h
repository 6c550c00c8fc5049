/* What a certificate proves, summed up anew. This code shares nothing with the solvers or with the search for the duals
 * and is meant to be read: whoever agrees with it need believe no other file. */
#ifndef SOLVE_CHECK_H
#define SOLVE_CHECK_H

#include "placement/solve/certificate.h"

/* No placement of at most slots [ranks] experts a rank has fewer crossings (transitions x crossing cost) than
 * *crossings_out. COT_ERR_MISMATCH if the certificate proves nothing about this trace and cluster, with the reason. */
cot_status_t solve_check_crossings(const solve_certificate_t *certificate, const place_stats_t *stats,
                                   const place_cluster_t *cluster, const uint32_t *slots, int64_t *crossings_out);

/* No placement has a smaller sum over layers of the largest rank load x slowness: load [layers, experts], slowness and
 * slots [ranks], free_slots the slots beyond one for each expert. */
cot_status_t solve_check_loads(const solve_problem_t *problem, int64_t *balance_out);

#endif

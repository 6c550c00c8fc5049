/* A worker rank: attention and routing for the requests whose home it is, and the FFN of the experts it owns. */
#ifndef WORKER_H
#define WORKER_H

#include "base/status.h"
#include "comm/comm.h"

/* Says hello to rank 0, loads what rank 0 tells it to, then runs steps until told to stop. All workers of the job call
 * it. A fault before READY is reported to rank 0 and returned; a fault in a step likewise, and ends the job there. */
cot_status_t worker_main(comm_link_t *link);

#endif

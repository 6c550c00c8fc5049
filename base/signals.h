/* SIGTERM and SIGINT for a rank. A signal from the launcher (our parent) means: leave now, the launcher kills one
 * second later. One from anybody else means: finish what runs, then end. */
#ifndef COT_SIGNALS_H
#define COT_SIGNALS_H

#include <stdatomic.h>

typedef enum { COT_ASKED_NOTHING, COT_ASKED_TO_DRAIN, COT_ASKED_TO_LEAVE } cot_asked_t;

/* For rank 0. Once asked to leave, the process exits with status 143 by itself after 400 ms if it has not by then. A
 * second signal while draining means leave. */
void cot_signals_install(void);
cot_asked_t cot_signals_asked(void);

/* For a rank that owns nothing outside itself: SIGTERM and SIGINT end it at once. */
void cot_signals_install_exit(void);

/* For a program that computes: SIGTERM and SIGINT set the flag that is returned, a second one ends it at once (130). */
const atomic_bool *cot_signals_install_stop(void);

#endif

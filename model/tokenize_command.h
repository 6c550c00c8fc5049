/* `coterie tokenize MODEL --in FILE.jsonl --out FILE.jsonl [--special]` */
#ifndef MODEL_TOKENIZE_COMMAND_H
#define MODEL_TOKENIZE_COMMAND_H

#include "base/settings.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* What came out of a file of lines. */
typedef struct {
    uint64_t lines, refused;
} model_tokenize_result_t;

/* Reads lines {"text":"…"} from `in_path` ("-": standard input), writes one line {"ids":[…],"text":"…"} for each, or
 * {"error":"…"} in its place. Reads nothing but MODEL/tokenizer.json besides. The output file appears when it is whole.
 * COT_ERR_PARTIAL if lines were refused (the output is there all the same). */
cot_status_t model_tokenize_file(const char *directory, const char *in_path, const char *out_path, bool add_special,
                                 model_tokenize_result_t *result_out);

/* The command: prints its error sentence and returns the exit code. */
int model_tokenize_command(const cot_settings_t *settings);

#endif

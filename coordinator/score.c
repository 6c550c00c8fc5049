#include "coordinator/score.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "coordinator/score_input.h"
#include "coordinator/score_line.h"
#include "coordinator/score_spool.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum {
    WINDOW_LINES = 4096,     /* read and not written yet */
    WINDOW_TOKENS = 1 << 22, /* of those lines, unless one alone has more */
    FEED_LINES = 16,         /* read between two looks at the workers */
    /* An mpirun that is told to end closes its ranks' standard input first and sends them SIGTERM one second later: the
     * end of standard input counts when no signal has followed it for this long. */
    SETTLE_MS = 1500,
};

typedef struct {
    const coord_score_config_t *config;
    coord_input_t input;
    coord_spool_t spool;
    cot_output_t output;
    bool ended;
    cot_deadline_t settled; /* the end of the input counts from here on */

    coord_line_t *first, *last; /* the window, in order of the lines */
    uint32_t window_lines;
    uint64_t window_tokens;
    coord_line_t *held;  /* the next line, while the engine has no room for it; its tokens are in `tokens` */
    cot_buffer_t tokens; /* of the line that is read */
    cot_buffer_t text;   /* of the line that is written */

    uint64_t lines, refused, scored;
    double logprob_sum;
    bool not_finite;    /* a logprob that is no number was seen */
    cot_status_t fault; /* of a callback */
    char fault_text[512];
} score_t;

/* ---- what the engine tells ---- */

static bool on_token(void *user, const coord_token_t *token)
{
    (void)user;
    (void)token;
    return false; /* nothing is drawn for a scored request */
}

static void on_scored(void *user, const coord_token_t *token)
{
    coord_line_t *line = user;
    score_t *score = line->owner;
    line->top1[token->position] = token->token;
    if (token->position + 1 < line->count) line->logprob[token->position + 1] = token->logprob;
    if (token->logits == NULL || score->fault != COT_OK) return;
    score->fault = coord_spool_row(&score->spool, line->spool_row + token->position, token->logits);
    if (score->fault != COT_OK) snprintf(score->fault_text, sizeof(score->fault_text), "%s", cot_error_text());
}

static void on_finished(void *user, coord_finish_t finish, const char *error)
{
    coord_line_t *line = user;
    (void)finish;
    (void)error; /* the engine's own status says it to coord_score */
    line->request = NULL;
}

/* ---- lines in ---- */

static void append(score_t *score, coord_line_t *line)
{
    *(score->last != NULL ? &score->last->next : &score->first) = line;
    score->last = line;
    score->window_lines++;
    score->window_tokens += line->count;
}

/* A line that is refused: its error stands in its place. */
static cot_status_t refuse(score_t *score, coord_line_t *line, const char *error)
{
    line->count = 0;
    line->error = cot_strdup(error);
    append(score, line); /* owned by the window from here on */
    return line->error != NULL ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for the error of a line");
}

/* Errors that are the line's own, not ours. */
static bool lines_fault(cot_status_t status)
{
    return status <= COT_ERR_INVALID && status >= COT_ERR_LIMIT;
}

static cot_status_t offer(score_t *score, bool *taken_out)
{
    static const coord_events_t events = {.token = on_token, .scored = on_scored, .finished = on_finished};
    coord_line_t *line = score->held;
    const coord_submit_t submit = {
        .tokens = (const int32_t *)(const void *)score->tokens.data,
        .count = line->count,
        .score = true,
        .want_logits = score->spool.fd >= 0,
        .trace_request = (uint32_t)line->number,
        .prompt_count = line->count,
        .events = &events,
        .user = line,
    };
    *taken_out = false;
    cot_status_t status = coord_engine_submit(score->config->engine, &submit, &line->request);
    if (status == COT_ERR_BUSY) return COT_OK;
    *taken_out = true;
    score->held = NULL;
    if (lines_fault(status)) return refuse(score, line, cot_error_text());
    append(score, line);
    COT_TRY(status);
    COT_TRY(coord_line_take(line, submit.tokens));
    return score->spool.fd >= 0 ? coord_spool_line(&score->spool, line->number, line->count, &line->spool_row) : COT_OK;
}

/* Reads a line; it is held, or refused at once. */
static cot_status_t read_line(score_t *score, coord_input_found_t *found)
{
    const char *text = NULL;
    size_t bytes = 0;
    COT_TRY(coord_input_next(&score->input, found, &text, &bytes));
    if (*found == COORD_INPUT_END || *found == COORD_INPUT_LATER) return COT_OK;
    coord_line_t *line = NULL;
    COT_TRY(coord_line_create(score->lines++, score, &line));
    cot_status_t status = COT_OK;
    cot_buffer_clear(&score->tokens);
    if (*found == COORD_INPUT_TOO_LONG)
        status = cot_fail(COT_ERR_LIMIT, "the line is over %zu bytes", COORD_SCORE_LINE_BYTES);
    else
        status = coord_input_parse(text, bytes, score->config->tokenizer, score->config->vocab, &score->tokens);
    if (lines_fault(status)) return refuse(score, line, cot_error_text());
    if (status == COT_OK && score->tokens.size / sizeof(int32_t) > UINT32_MAX)
        return refuse(score, line, "the line has more tokens than any context");
    if (status != COT_OK) {
        coord_line_free(line);
        return status;
    }
    line->count = (uint32_t)(score->tokens.size / sizeof(int32_t));
    score->held = line;
    return COT_OK;
}

static cot_status_t feed(score_t *score, bool *worked)
{
    for (int lines = 0; lines < FEED_LINES; lines++) {
        bool full = score->window_lines >= WINDOW_LINES || score->window_tokens >= WINDOW_TOKENS;
        if (score->held == NULL && !full && !score->ended) {
            coord_input_found_t found = COORD_INPUT_END;
            COT_TRY(read_line(score, &found));
            score->ended = found == COORD_INPUT_END;
            if (score->ended && score->input.fd == STDIN_FILENO) score->settled = cot_deadline_in_ms(SETTLE_MS);
            if (found == COORD_INPUT_END || found == COORD_INPUT_LATER) return COT_OK;
            *worked = true;
        }
        if (score->held == NULL) continue;
        bool taken = false;
        COT_TRY(offer(score, &taken));
        if (!taken) return COT_OK;
        *worked = true;
    }
    return COT_OK;
}

/* ---- lines out ---- */

static void add_up(score_t *score, const coord_line_t *line)
{
    if (line->error != NULL) score->refused++;
    for (uint32_t i = 1; i < line->count; i++) {
        if (isfinite(line->logprob[i])) {
            score->logprob_sum += (double)line->logprob[i];
            score->scored++;
        } else if (!score->not_finite) {
            cot_log_warn("line %llu: a logprob that is no number; written as null and left out of the perplexity",
                         (unsigned long long)line->number);
            score->not_finite = true;
        }
    }
}

/* Writes the lines at the head of the window that are done. */
static cot_status_t write_done(score_t *score, bool *worked)
{
    while (score->first != NULL && score->first->request == NULL) {
        coord_line_t *line = score->first;
        cot_buffer_clear(&score->text);
        COT_TRY(coord_line_print(line, &score->text));
        COT_TRY(cot_output_write(&score->output, score->text.data, score->text.size));
        add_up(score, line);
        score->first = line->next;
        if (score->first == NULL) score->last = NULL;
        score->window_lines--;
        score->window_tokens -= line->count;
        coord_line_free(line);
        *worked = true;
    }
    return COT_OK;
}

/* ---- the whole ---- */

static bool stopped(const coord_score_config_t *config)
{
    return cot_signals_asked() != COT_ASKED_NOTHING || (config->stop != NULL && atomic_load(config->stop));
}

static bool complete(const score_t *score)
{
    return score->ended && score->held == NULL && score->first == NULL && coord_engine_idle(score->config->engine) &&
           cot_deadline_passed(score->settled);
}

static cot_status_t run(score_t *score)
{
    coord_engine_t *engine = score->config->engine;
    cot_backoff_t backoff = {0};
    while (!complete(score)) {
        bool worked = false, moved = false;
        if (stopped(score->config)) return cot_fail(COT_ERR_CANCELLED, "interrupted: no output was written");
        COT_TRY(feed(score, &worked));
        COT_TRY(coord_engine_poll(engine, &moved));
        if (score->fault != COT_OK) return cot_fail(score->fault, "%s", score->fault_text);
        COT_TRY(write_done(score, &worked));
        if (worked || moved)
            cot_backoff_reset(&backoff);
        else
            cot_backoff_wait(&backoff);
    }
    return COT_OK;
}

static cot_status_t commit(score_t *score)
{
    const coord_score_config_t *config = score->config;
    if (score->spool.fd >= 0) COT_TRY(coord_spool_commit(&score->spool));
    COT_TRY(cot_output_commit(&score->output));
    double perplexity = score->scored > 0 ? exp(-score->logprob_sum / (double)score->scored) : (double)NAN;
    if (config->report != NULL && (fprintf(config->report, "perplexity %.9g over %llu tokens\n", perplexity,
                                           (unsigned long long)score->scored) < 0 ||
                                   fflush(config->report) != 0))
        return cot_fail(COT_ERR_IO, "the perplexity cannot be written to standard output");
    if (score->refused == 0) return COT_OK;
    return cot_fail(COT_ERR_PARTIAL, "%llu of %llu lines could not be scored: see their \"error\" in %s",
                    (unsigned long long)score->refused, (unsigned long long)score->lines, config->out);
}

static cot_status_t open_files(score_t *score)
{
    const coord_score_config_t *config = score->config;
    if (config->in == NULL || config->in[0] == '\0') return cot_fail(COT_ERR_INVALID, "give --in FILE.jsonl (or -)");
    if (config->out == NULL || config->out[0] == '\0') return cot_fail(COT_ERR_INVALID, "give --out FILE.jsonl");
    COT_TRY(coord_input_open(config->in, COORD_SCORE_LINE_BYTES, &score->input));
    COT_TRY(cot_output_open(config->out, &score->output));
    if (config->logits == NULL || config->logits[0] == '\0') return COT_OK;
    return coord_spool_open(config->logits, config->vocab, &score->spool);
}

static void close_files(score_t *score)
{
    if (score->held != NULL) coord_line_free(score->held);
    while (score->first != NULL) {
        coord_line_t *line = score->first;
        score->first = line->next;
        if (line->request != NULL) coord_engine_cancel(score->config->engine, line->request);
        coord_line_free(line);
    }
    coord_input_close(&score->input);
    coord_spool_close(&score->spool);
    cot_output_discard(&score->output);
    cot_buffer_free(&score->tokens);
    cot_buffer_free(&score->text);
}

cot_status_t coord_score(const coord_score_config_t *config)
{
    score_t score = {.config = config, .spool = {.fd = -1}};
    cot_status_t status = open_files(&score);
    if (status == COT_OK) status = run(&score);
    if (status == COT_OK) status = commit(&score);
    close_files(&score);
    return status;
}

/* ExFlow's integer program (arXiv 2401.08383, equations 8 to 12), aggregated: its binary R of every token and boundary
 * depends only on the pair of experts, so one R for each pair with the pair's count as weight is the same program.
 * Staged as its code does by default: ranks are halved again and again, each half a program of its own in which only
 * transitions between the experts at hand count. */
#include "placement/solve/baselines.h"
#include "placement/solve/milp.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_BYTES (UINT64_C(512) << 20)

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    const int64_t *transition;
    uint32_t order[PLACE_MAX_RANKS]; /* ranks, node after node */
    solve_rank_t *at;                /* [layers, experts] first place in `order` of the part that an expert is in */
    /* of the halving at hand */
    uint32_t first, middle, end; /* places [first, end) */
    uint32_t room[2];            /* slots of the halves */
    uint32_t *column;            /* [layers, experts] of an expert's x: 1 in the second half */
    bool *second;                /* [layers, experts] the start */
    bool compact;                /* one cost for each expert, not for each pair: the same optimum, fewer nonzeros */
    uint32_t halvings, optimal;
} exflow_t;

static int64_t count_of(const exflow_t *x, size_t layer, size_t e, size_t f)
{
    return x->transition[(layer * x->problem->experts + e) * x->problem->experts + f];
}

static bool inside(const exflow_t *x, size_t cell)
{
    return x->at[cell] == x->first;
}

static uint32_t slots_between(const exflow_t *x, uint32_t first, uint32_t end)
{
    uint32_t sum = 0;
    for (uint32_t i = first; i < end; i++) sum += x->problem->slots[x->order[i]];
    return sum;
}

/* Between nodes where there are several, as near to the middle as can be. */
static uint32_t find_middle(const exflow_t *x, uint32_t first, uint32_t end)
{
    const place_cluster_t *cluster = x->problem->cluster;
    uint32_t middle = first + (end - first) / 2, best = middle, distance = UINT32_MAX;
    for (uint32_t i = first + 1; i < end; i++) {
        if (cluster->rank[x->order[i - 1]].node == cluster->rank[x->order[i]].node) continue;
        uint32_t away = i > middle ? i - middle : middle - i;
        if (away < distance) best = i;
        if (away < distance) distance = away;
    }
    return best;
}

/* ---- the start: each layer's experts go where their predecessors' tokens are, as far as there is room ---- */

static double pull_to_second(const exflow_t *x, size_t layer, size_t f)
{
    const solve_problem_t *p = x->problem;
    double pull = 0;
    for (size_t e = 0; layer > 0 && e < p->experts; e++) {
        size_t cell = (layer - 1) * p->experts + e;
        if (!inside(x, cell)) continue;
        double count = (double)count_of(x, layer - 1, e, f);
        pull += x->second[cell] ? count : -count;
    }
    return pull;
}

static void start_layer(exflow_t *x, size_t layer)
{
    const solve_problem_t *p = x->problem;
    size_t first = layer * p->experts;
    uint32_t members = 0;
    for (size_t e = 0; e < p->experts; e++) {
        x->second[first + e] = false;
        members += inside(x, first + e);
    }
    uint32_t wanted = (uint32_t)((uint64_t)members * x->room[1] / (x->room[0] + x->room[1]));
    if (members - wanted > x->room[0]) wanted = members - x->room[0];
    for (; wanted > 0; wanted--) {
        size_t best = p->experts;
        double most = -HUGE_VAL;
        for (size_t e = p->experts; e-- > 0;) {
            if (!inside(x, first + e) || x->second[first + e]) continue;
            double pull = pull_to_second(x, layer, e);
            if (pull <= most) continue;
            most = pull;
            best = e;
        }
        x->second[first + best] = true;
    }
}

/* ---- the program ---- */

typedef struct {
    uint64_t members, pairs, rows_with_cost;
    double all; /* transitions */
} sizes_t;

static sizes_t measure(exflow_t *x)
{
    const solve_problem_t *p = x->problem;
    sizes_t sizes = {0};
    for (size_t l = 0; l < p->layers; l++)
        for (size_t e = 0; e < p->experts; e++) {
            if (!inside(x, l * p->experts + e)) continue;
            x->column[l * p->experts + e] = (uint32_t)sizes.members++;
            uint64_t before = sizes.pairs;
            for (size_t f = 0; l + 1 < p->layers && f < p->experts; f++) {
                if (!inside(x, (l + 1) * p->experts + f) || count_of(x, l, e, f) == 0) continue;
                sizes.pairs++;
                sizes.all += (double)count_of(x, l, e, f);
            }
            sizes.rows_with_cost += sizes.pairs > before;
        }
    return sizes;
}

static void add_room(const exflow_t *x, solve_milp_t *milp)
{
    const solve_problem_t *p = x->problem;
    for (size_t l = 0; l < p->layers; l++) {
        uint32_t members = 0;
        for (size_t e = 0; e < p->experts; e++) members += inside(x, l * p->experts + e);
        double least = members > x->room[0] ? members - x->room[0] : 0;
        solve_milp_row(milp, least, members < x->room[1] ? members : x->room[1]);
        for (size_t e = 0; e < p->experts; e++)
            if (inside(x, l * p->experts + e)) solve_milp_add(milp, x->column[l * p->experts + e], 1);
    }
}

/* R >= x - y and R >= y - x. */
static void add_pair(solve_milp_t *milp, uint32_t r, uint32_t x, uint32_t y)
{
    for (int sign = -1; sign <= 1; sign += 2) {
        solve_milp_row(milp, 0, HUGE_VAL);
        solve_milp_add(milp, r, 1);
        solve_milp_add(milp, x, sign);
        solve_milp_add(milp, y, -sign);
    }
}

/* What an expert's tokens cost together: c >= sum T y - S x and c >= S x - sum T y, S = sum T; in units of S. */
static void add_row(const exflow_t *x, solve_milp_t *milp, uint32_t c, size_t l, size_t e, double sum)
{
    const solve_problem_t *p = x->problem;
    for (int sign = -1; sign <= 1; sign += 2) {
        solve_milp_row(milp, 0, HUGE_VAL);
        solve_milp_add(milp, c, 1);
        solve_milp_add(milp, x->column[l * p->experts + e], sign);
        for (size_t f = 0; f < p->experts; f++)
            if (inside(x, (l + 1) * p->experts + f) && count_of(x, l, e, f) > 0)
                solve_milp_add(milp, x->column[(l + 1) * p->experts + f], -sign * (double)count_of(x, l, e, f) / sum);
    }
}

/* Fills the program and its start; costs in percent of the transitions. */
static void fill(const exflow_t *x, const sizes_t *sizes, solve_milp_t *milp, double *start)
{
    const solve_problem_t *p = x->problem;
    uint32_t next = (uint32_t)sizes->members;
    for (uint32_t j = 0; j < next; j++) solve_milp_binary(milp, j);
    add_room(x, milp);
    for (size_t l = 0; l < p->layers; l++)
        for (size_t e = 0; e < p->experts; e++) {
            size_t cell = l * p->experts + e;
            if (!inside(x, cell)) continue;
            start[x->column[cell]] = x->second[cell];
            double sum = 0, cross = 0;
            for (size_t f = 0; l + 1 < p->layers && f < p->experts; f++) {
                size_t other = (l + 1) * p->experts + f;
                double count = (double)count_of(x, l, e, f);
                if (!inside(x, other) || count <= 0) continue;
                sum += count;
                cross += x->second[cell] != x->second[other] ? count : 0;
                if (x->compact) continue;
                milp->objective[next] = 100 * count / sizes->all;
                start[next] = x->second[cell] != x->second[other];
                add_pair(milp, next++, x->column[cell], x->column[other]);
            }
            if (!x->compact || sum <= 0) continue;
            milp->objective[next] = 100 * sum / sizes->all;
            start[next] = cross / sum;
            add_row(x, milp, next++, l, e, sum);
        }
}

static cot_status_t build(exflow_t *x, solve_milp_t **milp_out, double **start_out)
{
    sizes_t sizes = measure(x);
    uint64_t literal = sizes.members + 6 * sizes.pairs;
    x->compact = literal > SOLVE_MILP_NONZEROS;
    uint64_t costs = x->compact ? sizes.rows_with_cost : sizes.pairs;
    uint64_t nonzeros = x->compact ? sizes.members + 2 * (sizes.pairs + 2 * sizes.rows_with_cost) : literal;
    COT_TRY(solve_milp_create(sizes.members + costs, x->problem->layers + 2 * costs, nonzeros, milp_out));
    *start_out = cot_calloc(sizes.members + costs, sizeof(**start_out));
    if (*start_out == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a start");
    fill(x, &sizes, *milp_out, *start_out);
    return COT_OK;
}

/* ---- halving ---- */

static cot_status_t solve_half(exflow_t *x, cot_deadline_t deadline)
{
    solve_milp_t *milp = NULL;
    double *start = NULL, *found = NULL;
    cot_status_t status = build(x, &milp, &start);
    if (status == COT_OK) {
        found = cot_calloc(milp->columns, sizeof(*found));
        if (found == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for an answer");
    }
    if (status == COT_OK) {
        solve_milp_config_t config = {deadline, x->context->stop, MEMORY_BYTES, 0, start};
        solve_milp_result_t result = {0};
        status = solve_milp_run(milp, &config, found, &result);
        x->halvings++;
        x->optimal += result.outcome == SOLVE_MILP_OPTIMAL;
    }
    for (size_t cell = 0; cell < solve_cells(x->problem) && status == COT_OK; cell++)
        if (inside(x, cell)) x->second[cell] = found[x->column[cell]] > 0.5;
    solve_milp_destroy(milp);
    cot_free(start);
    cot_free(found);
    return status;
}

/* Depth is at most log2 of the ranks (the nodes' boundaries may add some). Half of the time that is left goes to the
 * first halving, which decides most. */
static cot_status_t halve(exflow_t *x, uint32_t first, uint32_t end, cot_deadline_t deadline)
{
    if (end - first < 2) return COT_OK;
    uint32_t middle = find_middle(x, first, end);
    x->first = first;
    x->middle = middle;
    x->end = end;
    x->room[0] = slots_between(x, first, middle);
    x->room[1] = slots_between(x, middle, end);
    for (size_t l = 0; l < x->problem->layers; l++) start_layer(x, l);
    int64_t now = cot_now_ns(), left = deadline > now ? deadline - now : 0;
    COT_TRY(solve_half(x, end - first == 2 ? deadline : now + left / 2));
    for (size_t cell = 0; cell < solve_cells(x->problem); cell++)
        if (inside(x, cell) && x->second[cell]) x->at[cell] = (solve_rank_t)middle;
    now = cot_now_ns();
    left = deadline > now ? deadline - now : 0;
    COT_TRY(halve(x, first, middle, now + left / 2));
    return halve(x, middle, end, deadline);
}

static cot_status_t run(exflow_t *x, solve_answer_t *answer)
{
    const solve_problem_t *p = x->problem;
    uint32_t next = 0;
    for (uint32_t node = 0; node < p->nodes; node++)
        for (uint32_t r = 0; r < p->ranks; r++)
            if (p->cluster->rank[r].node == node) x->order[next++] = r;
    cot_deadline_t deadline = x->context->deadline;
    if (deadline == COT_NEVER) deadline = cot_deadline_in_ms(60000); /* its code's own limit */
    COT_TRY(halve(x, 0, p->ranks, deadline));
    for (size_t cell = 0; cell < solve_cells(p); cell++) x->at[cell] = (solve_rank_t)x->order[x->at[cell]];
    COT_TRY(solve_plan_from_ranks(p, x->at, &answer->plan));
    if (x->optimal == x->halvings)
        snprintf(answer->note, sizeof(answer->note), "all %u halvings optimal by themselves", x->halvings);
    else
        snprintf(answer->note, sizeof(answer->note),
                 "%u of %u halvings optimal by themselves; the others: time limit, "
                 "best so far (from a greedy chain)",
                 x->optimal, x->halvings);
    return COT_OK;
}

cot_status_t solve_exflow(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer_out)
{
    if (p->stats->transition == NULL || p->layers < 2)
        return cot_fail(COT_ERR_UNSUPPORTED, "exflow: the trace holds no transitions, which its program is about");
    exflow_t x = {.problem = p, .context = context, .transition = p->stats->transition};
    x.at = cot_calloc(solve_cells(p), sizeof(*x.at));
    x.column = cot_calloc(solve_cells(p), sizeof(*x.column));
    x.second = cot_calloc(solve_cells(p), sizeof(*x.second));
    solve_answer_t answer = {0};
    cot_status_t status = COT_OK;
    if (x.at == NULL || x.column == NULL || x.second == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    if (status == COT_OK) status = run(&x, &answer);
    cot_free(x.at);
    cot_free(x.column);
    cot_free(x.second);
    if (status != COT_OK) return cot_fail_in(status, "exflow");
    *answer_out = answer;
    return COT_OK;
}

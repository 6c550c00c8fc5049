#include "placement/solve/hungarian.h"

#include <stdbool.h>
#include <string.h>

typedef struct {
    const int64_t *cost;
    uint32_t n;
    int64_t *row_price, *column_price, *slack; /* rows and columns count from 1; 0 is the start */
    uint32_t *row_of, *way, *used;
} state_t;

/* Finds the shortest augmenting path that gives row `row` a column. */
static uint32_t grow(state_t *s, uint32_t row)
{
    uint32_t column = 0;
    s->row_of[0] = row;
    for (uint32_t j = 0; j <= s->n; j++) {
        s->slack[j] = INT64_MAX;
        s->used[j] = 0;
    }
    do {
        uint32_t i = s->row_of[column], next = 0;
        int64_t step = INT64_MAX;
        s->used[column] = 1;
        for (uint32_t j = 1; j <= s->n; j++) {
            if (s->used[j]) continue;
            int64_t reduced = s->cost[(size_t)(i - 1) * s->n + j - 1] - s->row_price[i] - s->column_price[j];
            if (reduced < s->slack[j]) {
                s->slack[j] = reduced;
                s->way[j] = column;
            }
            if (s->slack[j] < step) {
                step = s->slack[j];
                next = j;
            }
        }
        for (uint32_t j = 0; j <= s->n; j++) {
            if (s->used[j]) {
                s->row_price[s->row_of[j]] += step;
                s->column_price[j] -= step;
            } else {
                s->slack[j] -= step;
            }
        }
        column = next;
    } while (s->row_of[column] != 0);
    return column;
}

int64_t solve_hungarian(const int64_t *cost, uint32_t n, uint32_t *column_of, void *scratch)
{
    memset(scratch, 0, SOLVE_HUNGARIAN_BYTES(n));
    state_t s = {.cost = cost, .n = n, .row_price = scratch};
    s.column_price = s.row_price + n + 1;
    s.slack = s.column_price + n + 1;
    s.row_of = (uint32_t *)(s.slack + n + 1);
    s.way = s.row_of + n + 1;
    s.used = s.way + n + 1;
    for (uint32_t row = 1; row <= n; row++)
        for (uint32_t column = grow(&s, row); column != 0;) {
            uint32_t before = s.way[column];
            s.row_of[column] = s.row_of[before];
            column = before;
        }
    int64_t sum = 0;
    for (uint32_t j = 1; j <= n; j++) {
        column_of[s.row_of[j] - 1] = j - 1;
        sum += cost[(size_t)(s.row_of[j] - 1) * n + j - 1];
    }
    return sum;
}

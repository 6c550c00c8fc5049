#include "placement/solve/certificate.h"

#include "base/memory.h"
#include "base/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CERTIFICATE_FORMAT "coterie.certificate/1"
#define SIDE_MAX 65536U

/* ---- writing ---- */

/* Every tensor of the file, in its order; `write` false: only declared. */
static cot_status_t put(cot_safetensors_writer_t *writer, bool write, const char *name, const void *values,
                        const uint64_t shape[2])
{
    if (write) return cot_safetensors_writer_write(writer, values, shape[0] * shape[1] * sizeof(int64_t));
    return cot_safetensors_writer_declare(writer, name, COT_DTYPE_I64, 2, shape);
}

static cot_status_t put_level(cot_safetensors_writer_t *writer, bool write, const solve_bound_t *bound, uint32_t number)
{
    const solve_level_t *level = &bound->level[number];
    int64_t head[2] = {level->weight, level->method == SOLVE_BY_GRAM}, group[PLACE_MAX_RANKS];
    for (uint32_t r = 0; r < bound->ranks; r++) group[r] = level->group[r];
    const uint64_t heads[2] = {1, 2}, groups[2] = {1, bound->ranks}, duals[2] = {bound->layers - 1, bound->experts};
    char name[32];
    snprintf(name, sizeof(name), "level.%u", number);
    COT_TRY(put(writer, write, name, head, heads));
    snprintf(name, sizeof(name), "group.%u", number);
    COT_TRY(put(writer, write, name, group, groups));
    if (level->method == SOLVE_BY_GRAM) return COT_OK;
    snprintf(name, sizeof(name), "before.%u", number);
    COT_TRY(put(writer, write, name, level->before, duals));
    snprintf(name, sizeof(name), "after.%u", number);
    return put(writer, write, name, level->after, duals);
}

static cot_status_t put_all(cot_safetensors_writer_t *writer, bool write, const solve_bound_t *bound)
{
    int64_t shape[4] = {bound->layers, bound->experts, bound->ranks, bound->levels};
    const uint64_t shapes[2] = {1, 4}, cells[2] = {bound->layers, bound->experts}, one[2] = {1, 1};
    COT_TRY(put(writer, write, "shape", shape, shapes));
    for (uint32_t i = 0; i < bound->levels; i++) COT_TRY(put_level(writer, write, bound, i));
    if (bound->diagonal == NULL) return COT_OK;
    COT_TRY(put(writer, write, "diagonal", bound->diagonal, cells));
    return put(writer, write, "centre", &bound->centre, one);
}

cot_status_t solve_certificate_save(const solve_bound_t *bound, const char *objective, const char *path)
{
    cot_safetensors_writer_t *writer = NULL;
    COT_TRY(cot_safetensors_writer_create(path, &writer));
    cot_status_t status = cot_safetensors_writer_metadata(writer, "format", CERTIFICATE_FORMAT);
    if (status == COT_OK) status = cot_safetensors_writer_metadata(writer, "objective", objective);
    if (status == COT_OK) status = put_all(writer, false, bound);
    if (status == COT_OK) status = put_all(writer, true, bound);
    if (status == COT_OK) status = cot_safetensors_writer_commit(writer);
    cot_safetensors_writer_destroy(writer);
    return status;
}

/* ---- reading ---- */

void solve_certificate_destroy(solve_certificate_t *certificate)
{
    if (certificate == NULL) return;
    for (uint32_t i = 0; i < SOLVE_LEVELS_MAX; i++) {
        cot_free(certificate->level[i].group);
        cot_free(certificate->level[i].before);
        cot_free(certificate->level[i].after);
    }
    cot_free(certificate->diagonal);
    cot_free(certificate);
}

/* A copy of tensor "NAME.number" (or NAME, number < 0), which must be I64 [rows, columns]. */
static cot_status_t get(const cot_safetensors_t *file, const char *name, int number, uint64_t rows, uint64_t columns,
                        int64_t **out)
{
    char full[32];
    snprintf(full, sizeof(full), number < 0 ? "%s" : "%s.%d", name, number);
    const cot_tensor_t *tensor = cot_safetensors_find(file, full);
    if (tensor == NULL || tensor->dtype != COT_DTYPE_I64 || tensor->dims != 2 || tensor->shape[0] != rows ||
        tensor->shape[1] != columns)
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\" must be I64 [%llu, %llu]", full, (unsigned long long)rows,
                        (unsigned long long)columns);
    *out = cot_alloc(tensor->bytes);
    if (*out == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for tensor \"%s\"", full);
    memcpy(*out, tensor->data, tensor->bytes);
    return COT_OK;
}

static cot_status_t get_level(const cot_safetensors_t *file, uint32_t number, solve_certificate_t *c)
{
    solve_certificate_level_t *level = &c->level[number];
    int64_t *head = NULL, *group = NULL;
    COT_TRY(get(file, "level", (int)number, 1, 2, &head));
    level->weight = head[0];
    level->gram = head[1] != 0;
    cot_free(head);
    COT_TRY(get(file, "group", (int)number, 1, c->ranks, &group));
    level->group = cot_calloc(c->ranks, sizeof(*level->group));
    bool inside = level->group != NULL;
    for (uint32_t r = 0; r < c->ranks && inside; r++) {
        inside = group[r] >= 0 && group[r] < c->ranks;
        level->group[r] = (int32_t)group[r];
    }
    cot_free(group);
    if (!inside)
        return cot_fail(COT_ERR_FORMAT, "tensor \"group.%u\": a group is not from 0 to %u", number, c->ranks - 1);
    if (level->gram) return COT_OK;
    COT_TRY(get(file, "before", (int)number, c->layers - 1, c->experts, &level->before));
    return get(file, "after", (int)number, c->layers - 1, c->experts, &level->after);
}

static cot_status_t get_shape(const cot_safetensors_t *file, solve_certificate_t *c)
{
    const char *format = cot_safetensors_metadata(file, "format");
    if (format == NULL || strcmp(format, CERTIFICATE_FORMAT) != 0)
        return cot_fail(COT_ERR_FORMAT, "\"format\" must be \"" CERTIFICATE_FORMAT "\": this is no certificate");
    int64_t *shape = NULL;
    COT_TRY(get(file, "shape", -1, 1, 4, &shape));
    bool sane = shape[0] > 0 && shape[0] <= SIDE_MAX && shape[1] > 0 && shape[1] <= SIDE_MAX && shape[2] > 0 &&
                shape[2] <= PLACE_MAX_RANKS && shape[3] >= 0 && shape[3] <= SOLVE_LEVELS_MAX &&
                (shape[3] == 0 || shape[0] > 1);
    if (sane) {
        c->layers = (uint32_t)shape[0];
        c->experts = (uint32_t)shape[1];
        c->ranks = (uint32_t)shape[2];
        c->levels = (uint32_t)shape[3];
    }
    cot_free(shape);
    return sane ? COT_OK : cot_fail(COT_ERR_FORMAT, "tensor \"shape\" holds impossible sizes");
}

static cot_status_t get_all(const cot_safetensors_t *file, solve_certificate_t *c)
{
    COT_TRY(get_shape(file, c));
    for (uint32_t i = 0; i < c->levels; i++) COT_TRY(get_level(file, i, c));
    if (cot_safetensors_find(file, "diagonal") == NULL) return COT_OK;
    int64_t *centre = NULL;
    COT_TRY(get(file, "diagonal", -1, c->layers, c->experts, &c->diagonal));
    COT_TRY(get(file, "centre", -1, 1, 1, &centre));
    c->centre = *centre;
    cot_free(centre);
    return COT_OK;
}

cot_status_t solve_certificate_load(const char *path, solve_certificate_t **certificate_out)
{
    cot_safetensors_t *file = NULL;
    COT_TRY(cot_safetensors_open(path, &file));
    solve_certificate_t *certificate = cot_calloc(1, sizeof(*certificate));
    cot_status_t status = certificate != NULL ? get_all(file, certificate)
                                              : cot_fail(COT_ERR_NO_MEMORY, "no memory for a certificate");
    cot_safetensors_close(file);
    if (status != COT_OK) {
        solve_certificate_destroy(certificate);
        return cot_fail_in(status, "%s", path);
    }
    *certificate_out = certificate;
    return COT_OK;
}

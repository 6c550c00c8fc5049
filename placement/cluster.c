#include "placement/cluster.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

#define CLUSTER_FORMAT "coterie.cluster/1"
#define CLUSTER_FILE_MAX ((size_t)64 << 20)
#define COST_MAX 1000000

void place_cluster_destroy(place_cluster_t *cluster)
{
    if (cluster == NULL) return;
    cot_free(cluster->rank);
    cot_free(cluster->link);
    cot_free(cluster);
}

/* ---- ranks ---- */

static cot_status_t read_rank(const json_t *entry, size_t index, place_rank_t *rank_out, uint64_t *count_out)
{
    place_rank_t rank = {.relative_speed = 1};
    uint64_t node = 0, slots = 0;
    *count_out = 1;
    if (!json_is_object(entry)) return cot_fail(COT_ERR_FORMAT, "entry %zu of \"ranks\" must be an object", index);
    cot_status_t status = cot_json_get_uint(entry, "count", PLACE_MAX_RANKS, count_out);
    if (status == COT_OK) status = cot_json_get_uint(entry, "node", UINT32_MAX, &node);
    if (status == COT_OK) status = cot_json_get_uint(entry, "slots", 1U << 20, &slots);
    if (status == COT_OK) status = cot_json_get_uint(entry, "memory_bytes", INT64_MAX, &rank.memory_bytes);
    if (status == COT_OK) status = cot_json_get_double(entry, "relative_speed", &rank.relative_speed);
    if (status != COT_OK) return cot_fail_in(status, "entry %zu of \"ranks\"", index);
    if (*count_out == 0) return cot_fail(COT_ERR_FORMAT, "entry %zu of \"ranks\": \"count\" is 0", index);
    if (!(rank.relative_speed >= 1e-3 && rank.relative_speed <= 1e3))
        return cot_fail(COT_ERR_FORMAT, "entry %zu of \"ranks\": \"relative_speed\" must be from 0.001 to 1000", index);
    rank.node = (uint32_t)node;
    rank.slots = (uint32_t)slots;
    *rank_out = rank;
    return COT_OK;
}

/* Counts first, so that the array is taken once. */
static cot_status_t read_ranks(place_cluster_t *cluster, const json_t *root)
{
    const json_t *list = json_object_get(root, "ranks");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return cot_fail(COT_ERR_FORMAT, "\"ranks\" must be a list with at least one entry");
    cluster->rank = cot_calloc(PLACE_MAX_RANKS, sizeof(*cluster->rank));
    if (cluster->rank == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the ranks");
    size_t index;
    json_t *entry;
    json_array_foreach(list, index, entry)
    {
        place_rank_t rank;
        uint64_t count = 0;
        COT_TRY(read_rank(entry, index, &rank, &count));
        if (count > PLACE_MAX_RANKS - cluster->ranks)
            return cot_fail(COT_ERR_LIMIT, "more than %u ranks", PLACE_MAX_RANKS);
        while (count-- > 0) cluster->rank[cluster->ranks++] = rank;
    }
    return COT_OK;
}

/* The file's node numbers become 0 … nodes-1 in order of appearance. */
static void number_nodes(place_cluster_t *cluster)
{
    uint32_t names[PLACE_MAX_RANKS];
    for (uint32_t r = 0; r < cluster->ranks; r++) {
        uint32_t node = 0;
        while (node < cluster->nodes && names[node] != cluster->rank[r].node) node++;
        if (node == cluster->nodes) names[cluster->nodes++] = cluster->rank[r].node;
        cluster->rank[r].node = node;
    }
}

/* ---- links ---- */

static cot_status_t check_link(const place_link_t *link, const char *what)
{
    if (!(link->latency_us >= 0 && link->latency_us <= 1e9))
        return cot_fail(COT_ERR_FORMAT, "%s: \"latency_us\" must be from 0 to 1e9", what);
    if (!(link->gigabytes_per_s > 0 && link->gigabytes_per_s <= 1e9))
        return cot_fail(COT_ERR_FORMAT,
                        "%s: \"gigabytes_per_s\" must be above 0: a rank without a link cannot take part", what);
    if (link->crossing_cost < 0 || link->crossing_cost > COST_MAX)
        return cot_fail(COT_ERR_FORMAT, "%s: \"crossing_cost\" must be an integer from 0 to %d", what, COST_MAX);
    return COT_OK;
}

static cot_status_t read_tier(const json_t *links, const char *name, place_link_t *link_out)
{
    const json_t *entry = json_object_get(links, name);
    if (!json_is_object(entry))
        return cot_fail(COT_ERR_FORMAT, "\"links\": \"%s\" is missing, but there are ranks it would join", name);
    place_link_t link = {.gigabytes_per_s = 0, .crossing_cost = 1};
    uint64_t cost = 1;
    COT_TRY(cot_json_get_double(entry, "latency_us", &link.latency_us));
    COT_TRY(cot_json_get_double(entry, "gigabytes_per_s", &link.gigabytes_per_s));
    COT_TRY(cot_json_get_uint(entry, "crossing_cost", COST_MAX, &cost));
    link.crossing_cost = (int64_t)cost;
    COT_TRY(check_link(&link, name));
    *link_out = link;
    return COT_OK;
}

static cot_status_t read_tiers(place_cluster_t *cluster, const json_t *links)
{
    place_link_t same = {0}, cross = {0};
    if (cluster->ranks > cluster->nodes) COT_TRY(read_tier(links, "same_node", &same));
    if (cluster->nodes > 1) COT_TRY(read_tier(links, "cross_node", &cross));
    for (uint32_t a = 0; a < cluster->ranks; a++)
        for (uint32_t b = 0; b < cluster->ranks; b++)
            if (a != b)
                cluster->link[(uint64_t)a * cluster->ranks + b] = cluster->rank[a].node == cluster->rank[b].node
                                                                      ? same
                                                                      : cross;
    return COT_OK;
}

/* The number at [a][b] of one of the matrices; `fallback` where the matrix is absent. */
static cot_status_t read_cell(const place_cluster_t *cluster, const json_t *matrix, const char *name, uint32_t a,
                              uint32_t b, double *value)
{
    const json_t *rows = json_object_get(matrix, name);
    if (rows == NULL) return COT_OK;
    const json_t *row = json_array_get(rows, a), *cell = json_array_get(row, b);
    if (json_array_size(rows) != cluster->ranks || json_array_size(row) != cluster->ranks || !json_is_number(cell))
        return cot_fail(COT_ERR_FORMAT, "\"matrix\": \"%s\" must be %u lists of %u numbers", name, cluster->ranks,
                        cluster->ranks);
    *value = json_number_value(cell);
    return COT_OK;
}

static cot_status_t read_matrix(place_cluster_t *cluster, const json_t *matrix)
{
    for (uint32_t a = 0; a < cluster->ranks; a++)
        for (uint32_t b = 0; b < cluster->ranks; b++) {
            if (a == b) continue;
            place_link_t *link = &cluster->link[(uint64_t)a * cluster->ranks + b];
            double cost = 1;
            COT_TRY(read_cell(cluster, matrix, "latency_us", a, b, &link->latency_us));
            COT_TRY(read_cell(cluster, matrix, "gigabytes_per_s", a, b, &link->gigabytes_per_s));
            COT_TRY(read_cell(cluster, matrix, "crossing_cost", a, b, &cost));
            char what[64];
            snprintf(what, sizeof(what), "the link from rank %u to rank %u", a, b);
            link->crossing_cost = cost == floor(cost) && fabs(cost) <= COST_MAX ? (int64_t)cost : -1;
            COT_TRY(check_link(link, what));
        }
    return COT_OK;
}

static bool same_figures(const place_link_t *a, const place_link_t *b)
{
    return a->latency_us == b->latency_us && a->gigabytes_per_s == b->gigabytes_per_s &&
           a->crossing_cost == b->crossing_cost;
}

/* Links of equal figures share a tier number; more than 256 different ones are one tier each for themselves. */
static void number_tiers(place_cluster_t *cluster)
{
    enum { TIERS_SOUGHT = 256 };
    const place_link_t *first[TIERS_SOUGHT];
    cluster->tiers = 1;
    for (uint64_t at = 0; at < (uint64_t)cluster->ranks * cluster->ranks; at++) {
        place_link_t *link = &cluster->link[at];
        if (at % cluster->ranks == at / cluster->ranks) continue;
        uint32_t tier = 1;
        while (tier < cluster->tiers && tier < TIERS_SOUGHT && !same_figures(first[tier], link)) tier++;
        if (tier >= cluster->tiers || tier >= TIERS_SOUGHT) tier = cluster->tiers++;
        if (tier < TIERS_SOUGHT && tier + 1 == cluster->tiers) first[tier] = link;
        link->tier = tier;
    }
}

static cot_status_t read_cluster(place_cluster_t *cluster, const json_t *root)
{
    const char *format = "";
    COT_TRY(cot_json_get_string(root, "format", &format));
    if (strcmp(format, CLUSTER_FORMAT) != 0)
        return cot_fail(COT_ERR_FORMAT, "\"format\" must be \"" CLUSTER_FORMAT "\": this is no cluster file");
    COT_TRY(read_ranks(cluster, root));
    number_nodes(cluster);
    COT_TRY(cot_json_get_double(root, "expert_ns_per_row", &cluster->expert_ns_per_row));
    if (!(cluster->expert_ns_per_row >= 0 && cluster->expert_ns_per_row <= 1e12))
        return cot_fail(COT_ERR_FORMAT, "\"expert_ns_per_row\" must be a time in ns, from 0 to 1e12");
    cluster->link = cot_calloc((size_t)cluster->ranks * cluster->ranks, sizeof(*cluster->link));
    if (cluster->link == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the links of %u ranks", cluster->ranks);
    const json_t *links = json_object_get(root, "links");
    if (cluster->ranks > 1 && !json_is_object(links)) return cot_fail(COT_ERR_FORMAT, "\"links\" must be an object");
    const json_t *matrix = json_object_get(links, "matrix");
    if (matrix != NULL)
        COT_TRY(read_matrix(cluster, matrix));
    else
        COT_TRY(read_tiers(cluster, links));
    number_tiers(cluster);
    return COT_OK;
}

cot_status_t place_cluster_parse(const char *text, size_t bytes, const char *what, place_cluster_t **cluster_out)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_bytes(text, bytes, what, &root));
    place_cluster_t *cluster = cot_calloc(1, sizeof(*cluster));
    cot_status_t status = cluster != NULL ? read_cluster(cluster, root)
                                          : cot_fail(COT_ERR_NO_MEMORY, "no memory for a cluster");
    json_decref(root);
    if (status != COT_OK) {
        place_cluster_destroy(cluster);
        return cot_fail_in(status, "%s", what);
    }
    *cluster_out = cluster;
    return COT_OK;
}

cot_status_t place_cluster_load(const char *path, place_cluster_t **cluster_out)
{
    char *text = NULL;
    size_t bytes = 0;
    COT_TRY(cot_file_read(path, CLUSTER_FILE_MAX, &text, &bytes));
    cot_status_t status = place_cluster_parse(text, bytes, path, cluster_out);
    cot_free(text);
    return status;
}

cot_status_t place_cluster_slots(const place_cluster_t *cluster, uint32_t experts, uint32_t layers,
                                 uint64_t expert_bytes, uint32_t *slots_out)
{
    uint64_t total = 0;
    for (uint32_t r = 0; r < cluster->ranks; r++) {
        const place_rank_t *rank = &cluster->rank[r];
        uint64_t slots = (experts + cluster->ranks - 1) / cluster->ranks;
        bool by_memory = rank->memory_bytes != 0 && expert_bytes != 0 && layers != 0;
        uint64_t held = by_memory ? rank->memory_bytes / expert_bytes / layers : UINT64_MAX;
        if (rank->slots != 0)
            slots = rank->slots;
        else if (by_memory)
            slots = held;
        if (slots > held)
            return cot_fail(COT_ERR_LIMIT, "rank %u: %llu slots of %llu bytes in %u layers are more than its memory", r,
                            (unsigned long long)slots, (unsigned long long)expert_bytes, layers);
        slots_out[r] = slots < experts ? (uint32_t)slots : experts;
        total += slots_out[r];
    }
    if (total < experts)
        return cot_fail(COT_ERR_LIMIT, "%u experts do not fit: the ranks have %llu slots in a layer", experts,
                        (unsigned long long)total);
    return COT_OK;
}

#include "model/weights.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/dummy.h"
#include "model/names.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_FILE_MAX ((size_t)256 << 20)
#define SHARDS_MAX 4096U

struct model_weights {
    const model_config_t *config;
    cot_safetensors_t **shard; /* mapped files; none for dummy weights */
    uint32_t shards;
    model_dummy_t *dummy; /* NULL for files */
    atomic_uint_least64_t bytes;
};

void model_weights_close(model_weights_t *weights)
{
    if (weights == NULL) return;
    for (uint32_t s = 0; s < weights->shards; s++) cot_safetensors_close(weights->shard[s]);
    cot_free(weights->shard);
    model_dummy_destroy(weights->dummy);
    cot_free(weights);
}

uint64_t model_weights_bytes(const model_weights_t *weights)
{
    return atomic_load(&weights->bytes);
}

/* ---- opening ---- */

static cot_status_t add_shard(model_weights_t *weights, const char *directory, const char *name)
{
    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || name[0] == '\0')
        return cot_fail(COT_ERR_FORMAT, "the index names the shard \"%.80s\", which is outside the model directory",
                        name);
    if (weights->shards == SHARDS_MAX) return cot_fail(COT_ERR_LIMIT, "more than %u shards", SHARDS_MAX);
    char *path = cot_path_join(directory, name);
    if (path == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    cot_status_t status = cot_safetensors_open(path, &weights->shard[weights->shards]);
    cot_free(path);
    if (status == COT_OK) weights->shards++;
    if (status == COT_ERR_NOT_FOUND) cot_fail_in(status, "a file of the model is missing; copy it again");
    return status;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens each file that the weight map names, once. */
static cot_status_t add_indexed(model_weights_t *weights, const char *directory, const json_t *index)
{
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return cot_fail(COT_ERR_FORMAT,
                        "model.safetensors.index.json: \"weight_map\" must be an object of tensor to file");
    const char **name = cot_calloc(json_object_size(map), sizeof(*name));
    if (name == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the weight map");
    size_t count = 0;
    const char *key;
    json_t *value;
    cot_status_t status = COT_OK;
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        if (!json_is_string(value))
            status = cot_fail(COT_ERR_FORMAT, "model.safetensors.index.json: \"%.80s\" must name a file", key);
        else
            name[count++] = json_string_value(value);
    }
    qsort(name, count, sizeof(*name), compare_texts);
    for (size_t i = 0; i < count && status == COT_OK; i++)
        if (i == 0 || strcmp(name[i], name[i - 1]) != 0) status = add_shard(weights, directory, name[i]);
    cot_free(name);
    return status;
}

static cot_status_t open_files(model_weights_t *weights, const char *directory)
{
    weights->shard = cot_calloc(SHARDS_MAX, sizeof(*weights->shard));
    char *path = cot_path_join(directory, "model.safetensors.index.json");
    json_t *index = NULL;
    cot_status_t status = weights->shard == NULL || path == NULL
                              ? cot_fail(COT_ERR_NO_MEMORY, "no memory to open the weights")
                              : cot_json_load_file(path, INDEX_FILE_MAX, &index);
    cot_free(path);
    if (status == COT_ERR_NOT_FOUND) return add_shard(weights, directory, "model.safetensors");
    COT_TRY(status);
    status = add_indexed(weights, directory, index);
    json_decref(index);
    return status;
}

/* Every tensor of the architecture is there, of the right shape and a supported type: found out before any is read. */
static cot_status_t check_all(const model_weights_t *weights)
{
    const model_config_t *config = weights->config;
    for (int role = 0; role < MODEL_ROLE_COUNT; role++) {
        uint32_t layers = model_role_in_layer((model_role_t)role) ? config->layers : 1;
        uint32_t experts = model_role_of_expert((model_role_t)role) ? config->experts : 1;
        for (uint32_t l = 0; l < layers; l++) {
            if (!model_role_present(config, (model_role_t)role, l)) continue;
            for (uint32_t e = 0; e < experts; e++) {
                uint64_t shape[2];
                cot_dtype_t dtype;
                COT_TRY(model_weights_shape(weights, (model_role_t)role, l, e, shape, &dtype));
            }
        }
    }
    return COT_OK;
}

cot_status_t model_weights_open(const char *directory, const model_config_t *config, model_weights_t **weights_out)
{
    model_weights_t *weights = cot_calloc(1, sizeof(*weights));
    if (weights == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to open the weights");
    weights->config = config;
    cot_status_t status = open_files(weights, directory);
    if (status == COT_OK) status = check_all(weights);
    if (status != COT_OK) {
        model_weights_close(weights);
        return status;
    }
    *weights_out = weights;
    return COT_OK;
}

cot_status_t model_weights_dummy(const model_config_t *config, uint64_t seed, model_weights_t **weights_out)
{
    model_weights_t *weights = cot_calloc(1, sizeof(*weights));
    if (weights == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for made-up weights");
    weights->config = config;
    cot_status_t status = model_dummy_create(seed, &weights->dummy);
    if (status != COT_OK) {
        cot_free(weights);
        return status;
    }
    *weights_out = weights;
    return COT_OK;
}

/* ---- tensors ---- */

#define SHAPE_BYTES 96

static void print_shape(uint32_t dims, const uint64_t *shape, char text[SHAPE_BYTES])
{
    int length = snprintf(text, SHAPE_BYTES, "[");
    for (uint32_t d = 0; d < dims; d++)
        length += snprintf(text + length, SHAPE_BYTES - (size_t)length, d > 0 ? ", %llu" : "%llu",
                           (unsigned long long)shape[d]);
    snprintf(text + length, SHAPE_BYTES - (size_t)length, "]");
}

static const cot_tensor_t *find_name(const model_weights_t *weights, const char *name)
{
    const cot_tensor_t *tensor = NULL;
    for (uint32_t s = 0; s < weights->shards && tensor == NULL; s++)
        tensor = cot_safetensors_find(weights->shard[s], name);
    return tensor;
}

/* transformers can be asked to store the experts of a layer as one tensor. */
static cot_status_t fail_missing(const model_weights_t *weights, uint32_t layer, const char *name)
{
    char fused[MODEL_NAME_BYTES];
    snprintf(fused, sizeof(fused), "model.layers.%u.mlp.experts.gate_up_proj", layer);
    if (find_name(weights, fused) != NULL)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the experts are stored fused (%s), which is not supported; save them with "
                        "save_original_format=True",
                        fused);
    return cot_fail(COT_ERR_NOT_FOUND, "the tensor %s is in none of the model's files", name);
}

/* Finds a tensor in the files and checks it against the configuration. */
static cot_status_t find(const model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                         const cot_tensor_t **tensor_out)
{
    char name[MODEL_NAME_BYTES];
    uint64_t shape[2];
    model_tensor_name(weights->config, role, layer, expert, name);
    model_tensor_shape(weights->config, role, shape);
    const cot_tensor_t *tensor = find_name(weights, name);
    if (tensor == NULL) return fail_missing(weights, layer, name);
    uint32_t dims = model_role_is_vector(role) ? 1 : 2;
    if (tensor->dims != dims || tensor->shape[0] != shape[0] || (dims == 2 && tensor->shape[1] != shape[1])) {
        char stored[SHAPE_BYTES], wanted[SHAPE_BYTES];
        print_shape(tensor->dims, tensor->shape, stored);
        print_shape(dims, shape, wanted);
        return cot_fail(COT_ERR_FORMAT, "the tensor %s has the shape %s; config.json asks for %s", name, stored,
                        wanted);
    }
    if (tensor->dtype != COT_DTYPE_BF16 && tensor->dtype != COT_DTYPE_F16 && tensor->dtype != COT_DTYPE_F32)
        return cot_fail(COT_ERR_UNSUPPORTED, "the tensor %s is of the type %s; BF16, F16 and F32 are supported", name,
                        cot_dtype_name(tensor->dtype));
    *tensor_out = tensor;
    return COT_OK;
}

cot_status_t model_weights_shape(const model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                                 uint64_t shape_out[2], cot_dtype_t *dtype_out)
{
    const cot_tensor_t *tensor = NULL;
    if (weights->dummy == NULL) COT_TRY(find(weights, role, layer, expert, &tensor));
    model_tensor_shape(weights->config, role, shape_out);
    *dtype_out = tensor != NULL ? tensor->dtype : COT_DTYPE_BF16;
    return COT_OK;
}

bool model_weights_made_up(const model_weights_t *weights)
{
    return weights->dummy != NULL;
}

void model_weights_make(const model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                        uint16_t *out)
{
    char name[MODEL_NAME_BYTES];
    uint64_t shape[2];
    model_tensor_name(weights->config, role, layer, expert, name);
    model_tensor_shape(weights->config, role, shape);
    model_dummy_fill(weights->dummy, name, shape, out);
}

cot_status_t model_weights_get(model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                               cot_tensor_t *tensor_out)
{
    const cot_tensor_t *tensor = NULL;
    if (weights->dummy == NULL) {
        COT_TRY(find(weights, role, layer, expert, &tensor));
    } else {
        char name[MODEL_NAME_BYTES];
        uint64_t shape[2];
        model_tensor_name(weights->config, role, layer, expert, name);
        model_tensor_shape(weights->config, role, shape);
        COT_TRY(model_dummy_get(weights->dummy, name, shape, &tensor));
    }
    atomic_fetch_add(&weights->bytes, tensor->bytes);
    *tensor_out = *tensor;
    return COT_OK;
}

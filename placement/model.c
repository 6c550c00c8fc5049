#include "placement/model.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_FILE_MAX ((size_t)16 << 20)
#define MODEL_MAX_LAYERS 4096U
#define MODEL_MAX_EXPERTS 65536U
#define MODEL_MAX_WIDTH (1U << 24)

void place_model_destroy(place_model_t *model)
{
    if (model == NULL) return;
    cot_free(model->layer_index);
    cot_free(model);
}

/* The first of the names that the file has; COT_ERR_FORMAT if it has none. */
static cot_status_t read_size(const json_t *root, const char *const *names, uint64_t max, uint32_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; names[i] != NULL; i++) {
        COT_TRY(cot_json_get_uint(root, names[i], max, &value));
        if (value > 0) {
            *out = (uint32_t)value;
            return COT_OK;
        }
    }
    return cot_fail(COT_ERR_FORMAT, "\"%s\" is missing: this is no config.json of a mixture-of-experts model",
                    names[0]);
}

static bool listed(const json_t *list, uint32_t layer)
{
    size_t index;
    json_t *value;
    json_array_foreach(list, index,
                       value) if (json_is_integer(value) && json_integer_value(value) == (json_int_t)layer) return true;
    return false;
}

/* Which layers hold experts: all (Mixtral, OLMoE), every n-th but those listed (Qwen), or those after the first dense
 * ones (DeepSeek). */
static cot_status_t read_layers(const json_t *root, place_model_t *model)
{
    static const char *const COUNT[] = {"num_hidden_layers", NULL};
    uint32_t all = 0, step = 1, dense = 0, every = 1;
    COT_TRY(read_size(root, COUNT, MODEL_MAX_LAYERS, &all));
    COT_TRY(cot_json_get_u32(root, "decoder_sparse_step", &step));
    COT_TRY(cot_json_get_u32(root, "first_k_dense_replace", &dense));
    if (json_is_integer(json_object_get(root, "moe_layer_freq")))
        COT_TRY(cot_json_get_u32(root, "moe_layer_freq", &every));
    if (step == 0 || every == 0)
        return cot_fail(COT_ERR_FORMAT, "\"decoder_sparse_step\" and \"moe_layer_freq\" must be at least 1");
    const json_t *mlp_only = json_object_get(root, "mlp_only_layers");
    model->layer_index = cot_calloc(all, sizeof(*model->layer_index));
    if (model->layer_index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers", all);
    for (uint32_t l = 0; l < all; l++)
        if ((l + 1) % step == 0 && l >= dense && l % every == 0 && !listed(mlp_only, l))
            model->layer_index[model->layers++] = l;
    return model->layers > 0 ? COT_OK : cot_fail(COT_ERR_FORMAT, "config.json leaves no layer with experts");
}

static cot_status_t read_model(const json_t *root, place_model_t *model)
{
    static const char *const EXPERTS[] = {"num_experts", "num_local_experts", "n_routed_experts", NULL};
    static const char *const TOP_K[] = {"num_experts_per_tok", NULL};
    static const char *const HIDDEN[] = {"hidden_size", NULL};
    static const char *const WIDTH[] = {"moe_intermediate_size", "intermediate_size", NULL};
    uint32_t hidden = 0, width = 0;
    const char *dtype = "bfloat16";
    COT_TRY(read_size(root, EXPERTS, MODEL_MAX_EXPERTS, &model->experts));
    COT_TRY(read_size(root, TOP_K, model->experts, &model->top_k));
    COT_TRY(read_size(root, HIDDEN, MODEL_MAX_WIDTH, &hidden));
    COT_TRY(read_size(root, WIDTH, MODEL_MAX_WIDTH, &width));
    COT_TRY(cot_json_get_string(root, "dtype", &dtype));
    COT_TRY(cot_json_get_string(root, "torch_dtype", &dtype));
    uint32_t bytes = strcmp(dtype, "float32") == 0 ? 4 : 2;
    model->row_bytes = hidden * bytes;
    model->expert_bytes = (uint64_t)3 * hidden * width * bytes;
    return read_layers(root, model);
}

cot_status_t place_model_parse(const char *text, size_t bytes, place_model_t **model_out)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_bytes(text, bytes, "config.json", &root));
    place_model_t *model = cot_calloc(1, sizeof(*model));
    cot_status_t status = COT_OK;
    if (model == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a model's shape");
    else
        status = read_model(root, model);
    json_decref(root);
    if (status != COT_OK) {
        place_model_destroy(model);
        return status;
    }
    cot_sha256_hex(text, bytes, model->sha256);
    *model_out = model;
    return COT_OK;
}

/* The name of the directory that holds the file. */
static void take_name(const char *file, place_model_t *model)
{
    const char *end = strrchr(file, '/');
    while (end != NULL && end > file && end[-1] == '/') end--;
    const char *begin = end;
    while (begin != NULL && begin > file && begin[-1] != '/') begin--;
    if (begin != NULL) snprintf(model->name, sizeof(model->name), "%.*s", (int)(end - begin), begin);
}

cot_status_t place_model_load(const char *path, place_model_t **model_out)
{
    struct stat what;
    bool folder = stat(path, &what) == 0 && S_ISDIR(what.st_mode);
    char *file = folder ? cot_path_join(path, "config.json") : cot_strdup(path);
    if (file == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    char *text = NULL;
    size_t bytes = 0;
    cot_status_t status = cot_file_read(file, CONFIG_FILE_MAX, &text, &bytes);
    if (status == COT_OK) {
        status = place_model_parse(text, bytes, model_out);
        if (status == COT_OK)
            take_name(file, *model_out);
        else
            cot_fail_in(status, "%s", file);
    }
    cot_free(text);
    cot_free(file);
    return status;
}

cot_status_t place_model_check(const place_model_t *model, uint32_t experts, uint32_t top_k, uint32_t layers,
                               const uint32_t *layer_index)
{
    if (experts != model->experts)
        return cot_fail(COT_ERR_MISMATCH, "holds %u experts a layer, the model has %u", experts, model->experts);
    if (top_k != 0 && top_k != model->top_k)
        return cot_fail(COT_ERR_MISMATCH, "holds %u experts a token, the model has %u", top_k, model->top_k);
    if (layers != model->layers)
        return cot_fail(COT_ERR_MISMATCH, "holds %u MoE layers, the model has %u", layers, model->layers);
    for (uint32_t l = 0; layer_index != NULL && l < layers; l++)
        if (layer_index[l] != model->layer_index[l])
            return cot_fail(COT_ERR_MISMATCH, "holds layer %u where the model's next MoE layer is %u", layer_index[l],
                            model->layer_index[l]);
    return COT_OK;
}

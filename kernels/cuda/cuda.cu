/* The cuda backend's instance: device, memory, weights, and the table of its stages. */
#include "kernels/cuda/cuda_int.cuh"

static cot_status_t missing(const char *stage)
{
    return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend has no %s stage yet: use --backend cpu", stage);
}

/* ---- refusals ---- */

static cot_status_t check(const kern_config_t *config)
{
    COT_TRY(kern_config_check(config));
    if (config->act != KERN_BF16)
        return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend computes in bfloat16: use --dtype bfloat16");
    if (config->head_dim != 64 && config->head_dim != 128)
        return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend has no attention for head_dim %u (64 and 128 it has)",
                        config->head_dim);
    if (config->clip_qkv > 0) return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend has no clip_qkv");
    if (config->hidden % 64 != 0 || config->max_width % 8 != 0)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the cuda backend takes a hidden size in multiples of 64 and widths in multiples of 8, not %u "
                        "and %u",
                        config->hidden, config->max_width);
    return COT_OK;
}

static cot_status_t find_device(kern_t *kern)
{
    int count = 0;
    KERN_CUDA_TRY(cudaGetDeviceCount(&count));
    if (kern->device < 0 || kern->device >= count)
        return cot_fail(COT_ERR_INVALID, "there is no device %d: this machine has %d", kern->device, count);
    cudaDeviceProp properties;
    KERN_CUDA_TRY(cudaSetDevice(kern->device));
    KERN_CUDA_TRY(cudaGetDeviceProperties(&properties, kern->device));
    kern->sms = properties.multiProcessorCount;
    kern->major = properties.major;
    kern->minor = properties.minor;
    kern->l2_bytes = static_cast<size_t>(properties.l2CacheSize);
    if (kern->major < 8)
        return cot_fail(COT_ERR_UNSUPPORTED, "device %d has compute capability %d.%d: the cuda backend needs 8.0",
                        kern->device, kern->major, kern->minor);
    kern->form = kern->major == 9 ? KERN_FORM_WGMMA : KERN_FORM_MMA;
    if (kern->major != 9) return COT_OK;
    cudaDriverEntryPointQueryResult found;
    KERN_CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", reinterpret_cast<void **>(&kern->encode),
                                                   12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess || kern->encode == NULL)
        return cot_fail(COT_ERR_DEVICE, "the driver has no cuTensorMapEncodeTiled: it is older than CUDA 12");
    return COT_OK;
}

/* ---- instance ---- */

static void cuda_destroy(kern_t *kern)
{
    if (kern == NULL) return;
    while (kern->blocks != NULL) {
        kern_cuda_block *next = kern->blocks->next;
        cudaFree(kern->blocks->memory);
        cot_free(kern->blocks);
        kern->blocks = next;
    }
    cot_free(kern);
}

static cot_status_t cuda_create(const kern_config_t *config, kern_t **kern_out)
{
    COT_TRY(check(config));
    kern_t *kern = static_cast<kern_t *>(cot_calloc(1, sizeof(*kern)));
    if (kern == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the kernels");
    kern->config = *config;
    kern->device = config->device;
    kern->stream = static_cast<cudaStream_t>(config->stream);
    cot_status_t status = find_device(kern);
    if (status == COT_OK) status = kern_cuda_experts_create(kern);
    if (status == COT_OK) status = kern_cuda_attn_in_create(kern);
    if (status == COT_OK) status = kern_cuda_attention_create(kern);
    if (status == COT_OK) status = kern_cuda_route_create(kern);
    if (status == COT_OK) status = kern_cuda_sort_create(kern);
    if (status != COT_OK) {
        cuda_destroy(kern);
        return status;
    }
    *kern_out = kern;
    return COT_OK;
}

static size_t cuda_scratch_bytes(const kern_t *kern)
{
    return kern->scratch_bytes;
}

cot_status_t kern_cuda_force(kern_t *kern, kern_cuda_form_t form)
{
    if (form >= KERN_FORM_WGMMA && kern->major != 9)
        return cot_fail(COT_ERR_UNSUPPORTED, "device %d (compute capability %d.%d) has no wgmma", kern->device,
                        kern->major, kern->minor);
    kern->form = form == KERN_FORM_MMA || kern->major != 9 ? KERN_FORM_MMA : KERN_FORM_WGMMA;
    kern->light_rows = form == KERN_FORM_WGMMA_FEW ? 256 : form == KERN_FORM_WGMMA_MANY ? 0 : 128;
    return COT_OK;
}

/* ---- memory ---- */

static void *cuda_alloc(kern_t *kern, size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes > 0 ? bytes : 1) != cudaSuccess) return NULL;
    /* On the instance's stream, and waited for: another stream may use the memory next. */
    if (cudaMemsetAsync(memory, 0, bytes, kern->stream) != cudaSuccess ||
        cudaStreamSynchronize(kern->stream) != cudaSuccess) {
        cudaFree(memory);
        return NULL;
    }
    return memory;
}

static void cuda_free(kern_t *kern, void *memory)
{
    (void)kern;
    cudaFree(memory);
}

cot_status_t kern_cuda_take(kern_t *kern, size_t bytes, void **memory_out)
{
    kern_cuda_block *block = static_cast<kern_cuda_block *>(cot_calloc(1, sizeof(*block)));
    if (block == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the kernels");
    block->memory = cuda_alloc(kern, bytes);
    if (block->memory == NULL) {
        cot_free(block);
        return cot_fail(COT_ERR_NO_MEMORY,
                        "device %d has no memory for the kernels' scratch (%zu bytes): lower --max-step-tokens",
                        kern->device, bytes);
    }
    block->next = kern->blocks;
    kern->blocks = block;
    kern->scratch_bytes += bytes;
    *memory_out = block->memory;
    return COT_OK;
}

/* ---- weights ---- */

cot_status_t kern_cuda_encode(const kern_t *kern, const void *data, uint64_t rows, uint64_t cols, uint64_t pitch,
                              CUtensorMap *map)
{
    if (kern->encode == NULL) return COT_OK;
    const cuuint64_t size[2] = {cols, rows}, stride[1] = {pitch * 2};
    const cuuint32_t box[2] = {64, 16}, step[2] = {1, 1};
    CUresult result = kern->encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void *>(data), size, stride,
                                   box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return cot_fail(COT_ERR_DEVICE, "the driver refuses a tensor map of %llu x %llu (error %d)",
                        static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols),
                        static_cast<int>(result));
    return COT_OK;
}

cot_status_t kern_cuda_copy_rows(const kern_cuda_copy *copy, uint16_t *device)
{
    const size_t count = static_cast<size_t>(copy->rows) * copy->cols;
    const void *from = copy->data;
    uint16_t *rounded = NULL;
    if (copy->dtype == KERN_F32) {
        rounded = static_cast<uint16_t *>(cot_alloc(count * sizeof(*rounded)));
        if (rounded == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for a weight of %u x %u in bf16", copy->rows, copy->cols);
        for (size_t i = 0; i < count; i++) {
            float value;
            memcpy(&value, static_cast<const char *>(copy->data) + i * sizeof(value), sizeof(value));
            rounded[i] = kern_float_to_bf16(value);
        }
        from = rounded;
    }
    cudaError_t error = cudaMemcpy2D(device, static_cast<size_t>(copy->pitch) * 2, from,
                                     static_cast<size_t>(copy->cols) * 2, static_cast<size_t>(copy->cols) * 2,
                                     copy->rows, cudaMemcpyHostToDevice);
    cot_free(rounded);
    /* The call may return before the last staged piece has reached the device, and our streams do not wait for it. */
    if (error == cudaSuccess) error = cudaStreamSynchronize(NULL);
    KERN_CUDA_TRY(error);
    return COT_OK;
}

static void cuda_matrix_destroy(kern_t *kern, kern_matrix_t *matrix)
{
    (void)kern;
    if (matrix == NULL) return;
    kern_cuda_matrix *owned = static_cast<kern_cuda_matrix *>(matrix->owned);
    if (owned != NULL) cudaFree(owned->data);
    cot_free(owned);
    *matrix = kern_matrix_t{};
}

static cot_status_t fill_matrix(kern_t *kern, const kern_cuda_copy *copy, kern_cuda_matrix *matrix)
{
    const uint64_t padded_rows = (copy->rows + 15ULL) / 16 * 16;
    matrix->data = static_cast<uint16_t *>(cuda_alloc(kern, padded_rows * copy->pitch * 2));
    if (matrix->data == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "device %d has no memory for a weight of %u x %u", kern->device, copy->rows,
                        copy->cols);
    if (copy->data != NULL) COT_TRY(kern_cuda_copy_rows(copy, matrix->data));
    return kern_cuda_encode(kern, matrix->data, padded_rows, copy->pitch, copy->pitch, &matrix->map);
}

/* `data` NULL: zeros (the lab fills weights on the device). */
static cot_status_t cuda_matrix_create(kern_t *kern, const void *data, kern_dtype_t dtype, uint32_t rows, uint32_t cols,
                                       kern_matrix_t *matrix_out)
{
    kern_cuda_matrix *owned = static_cast<kern_cuda_matrix *>(cot_calloc(1, sizeof(*owned)));
    if (owned == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a weight's description");
    owned->rows = rows;
    owned->cols = cols;
    owned->pitch = (cols + 63) / 64 * 64;
    const kern_cuda_copy copy = {.data = data, .dtype = dtype, .rows = rows, .cols = cols, .pitch = owned->pitch};
    kern_matrix_t matrix = {.data = NULL, .dtype = KERN_BF16, .rows = rows, .cols = cols, .owned = owned};
    cot_status_t status = fill_matrix(kern, &copy, owned);
    if (status != COT_OK) {
        cuda_matrix_destroy(kern, &matrix);
        return status;
    }
    matrix.data = owned->data;
    *matrix_out = matrix;
    return COT_OK;
}

/* ---- stages that are not there yet: each goes when its file comes ---- */

size_t kern_cuda_kv_block_bytes(const kern_t *kern)
{
    return 2 * static_cast<size_t>(kern->config.kv_heads) * KERN_KV_BLOCK * kern->config.head_dim * 2;
}

#define MISSING(stage)                                                              \
    cot_status_t kern_cuda_##stage(kern_t *kern, const kern_##stage##_args_t *args) \
    {                                                                               \
        (void)kern, (void)args;                                                     \
        return missing(#stage);                                                     \
    }
MISSING(mlp)

extern "C" const kern_ops_t kern_cuda = {
    .name = "cuda",
    .create = cuda_create,
    .destroy = cuda_destroy,
    .scratch_bytes = cuda_scratch_bytes,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .kv_block_bytes = kern_cuda_kv_block_bytes,
    .matrix_create = cuda_matrix_create,
    .matrix_destroy = cuda_matrix_destroy,
    .embed = kern_cuda_embed,
    .attn_in = kern_cuda_attn_in,
    .attention = kern_cuda_attention,
    .attn_out = kern_cuda_attn_out,
    .route = kern_cuda_route,
    .sort = kern_cuda_sort,
    .experts = kern_cuda_experts,
    .mlp = kern_cuda_mlp,
    .combine = kern_cuda_combine,
    .head = kern_cuda_head,
    .sample = kern_cuda_sample,
};

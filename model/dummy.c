#include "model/dummy.h"

#include "base/memory.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

typedef struct made {
    struct made *next;
    cot_tensor_t tensor;
    char *name;
    void *data;
} made_t;

struct model_dummy {
    uint64_t seed;
    pthread_mutex_t mutex;
    made_t *made[4096]; /* by hash of the name */
};

cot_status_t model_dummy_create(uint64_t seed, model_dummy_t **dummy_out)
{
    model_dummy_t *dummy = cot_calloc(1, sizeof(*dummy));
    if (dummy == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for made-up weights");
    dummy->seed = seed;
    pthread_mutex_init(&dummy->mutex, NULL);
    *dummy_out = dummy;
    return COT_OK;
}

static void free_made(made_t *made)
{
    if (made == NULL) return;
    cot_free(made->name);
    cot_free(made->data);
    cot_free(made);
}

void model_dummy_destroy(model_dummy_t *dummy)
{
    if (dummy == NULL) return;
    for (size_t bucket = 0; bucket < sizeof(dummy->made) / sizeof(*dummy->made); bucket++)
        while (dummy->made[bucket] != NULL) {
            made_t *first = dummy->made[bucket];
            dummy->made[bucket] = first->next;
            free_made(first);
        }
    pthread_mutex_destroy(&dummy->mutex);
    cot_free(dummy);
}

/* FNV-1a over the name, started from the seed. */
static uint64_t hash_name(uint64_t seed, const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ (seed * UINT64_C(0x9e3779b97f4a7c15));
    for (; *name != '\0'; name++) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return hash;
}

/* splitmix64's finaliser: a counter becomes 64 random bits. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/* Sums of four bytes: bell-shaped, variance 4 x 65535 / 12, here scaled to `deviation`. */
static void fill(uint16_t *out, size_t count, uint64_t key, float centre, float deviation)
{
    const float scale = deviation / 147.8f;
    for (size_t i = 0; i < count; i += 2) {
        uint64_t bits = mix(key + (i / 2 + 1) * UINT64_C(0x9e3779b97f4a7c15));
        for (size_t j = i; j < i + 2 && j < count; j++, bits >>= 32) {
            uint32_t sum = (uint32_t)(bits & 255) + (uint32_t)(bits >> 8 & 255) + (uint32_t)(bits >> 16 & 255) +
                           (uint32_t)(bits >> 24 & 255);
            out[j] = to_bf16(centre + ((float)sum - 510.0f) * scale);
        }
    }
}

/* About 1/sqrt(inputs), so that activations keep their size through the layers; the embedding is like a token's. */
void model_dummy_fill(const model_dummy_t *dummy, const char *name, const uint64_t shape[2], uint16_t *out)
{
    bool norm = strstr(name, "norm") != NULL;
    float deviation = norm ? 0.05f : strstr(name, "embed") != NULL ? 1.0f : 1.0f / sqrtf((float)shape[1]);
    if (!norm && shape[1] == 1) deviation = 0.02f;
    fill(out, shape[0] * shape[1], hash_name(dummy->seed, name), norm ? 1.0f : 0.0f, deviation);
}

static cot_status_t make(const model_dummy_t *dummy, const char *name, const uint64_t shape[2], made_t **made_out)
{
    made_t *made = cot_calloc(1, sizeof(*made));
    uint64_t count = shape[0] * shape[1];
    if (made != NULL) {
        made->name = cot_strdup(name);
        made->data = cot_alloc_aligned(count * sizeof(uint16_t));
    }
    if (made == NULL || made->name == NULL || made->data == NULL) {
        free_made(made);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to make up %s (%llu values)", name, (unsigned long long)count);
    }
    model_dummy_fill(dummy, name, shape, made->data);
    made->tensor = (cot_tensor_t){.name = made->name,
                                  .dtype = COT_DTYPE_BF16,
                                  .dims = shape[1] == 1 ? 1 : 2,
                                  .shape = {shape[0], shape[1]},
                                  .data = made->data,
                                  .bytes = count * sizeof(uint16_t)};
    *made_out = made;
    return COT_OK;
}

cot_status_t model_dummy_get(model_dummy_t *dummy, const char *name, const uint64_t shape[2],
                             const cot_tensor_t **tensor_out)
{
    made_t **bucket = &dummy->made[hash_name(0, name) % (sizeof(dummy->made) / sizeof(*dummy->made))];
    pthread_mutex_lock(&dummy->mutex);
    made_t *made = *bucket;
    while (made != NULL && strcmp(made->name, name) != 0) made = made->next;
    cot_status_t status = COT_OK;
    if (made == NULL && (status = make(dummy, name, shape, &made)) == COT_OK) {
        made->next = *bucket;
        *bucket = made;
    }
    pthread_mutex_unlock(&dummy->mutex);
    COT_TRY(status);
    *tensor_out = &made->tensor;
    return COT_OK;
}

/* The tokenizer on arbitrary input. The first byte chooses: a tokenizer.json of the fuzzer's own, or a text for one of
 * the families of tests/fixtures/tokenizer, which must come back unharmed or be refused. COTERIE_SOURCE_DIR is the
 * checkout. */
#include "base/json.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef COTERIE_SOURCE_DIR
#define COTERIE_SOURCE_DIR "."
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void load_bytes(const uint8_t *data, size_t bytes)
{
    char directory[] = "/tmp/fuzz-tokenizer.XXXXXX", path[64];
    if (mkdtemp(directory) == NULL) abort();
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) abort();
    model_tokenizer_t *tokenizer = NULL;
    if (model_tokenizer_load(directory, &tokenizer) == COT_OK) {
        cot_buffer_t ids = {0};
        (void)model_tokenizer_encode(tokenizer, "The 3 foxes' \xc3\xa9\xe2\x96\x81 <s>\n", 24, true, &ids);
        cot_buffer_free(&ids);
    }
    model_tokenizer_destroy(tokenizer);
    unlink(path);
    rmdir(directory);
}

/* Encoding what was decoded must give a text again; decoding any ids must give UTF-8, piece by piece. */
static void encode_bytes(const model_tokenizer_t *tokenizer, const uint8_t *data, size_t bytes)
{
    cot_buffer_t ids = {0}, text = {0};
    if (model_tokenizer_encode(tokenizer, (const char *)data, bytes, (bytes & 1) != 0, &ids) == COT_OK &&
        model_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids.data,
                               (uint32_t)(ids.size / sizeof(int32_t)), false, &text) != COT_OK)
        abort();
    cot_buffer_clear(&ids);
    model_stream_t stream = {0};
    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        int32_t id = data[i] | data[i + 1] << 8;
        if (model_stream_push(tokenizer, &stream, id, (bytes & 2) != 0, &ids) != COT_OK) abort();
    }
    if (model_stream_finish(tokenizer, &stream, &ids) != COT_OK) abort();
    cot_buffer_clear(&text);
    if (model_tokenizer_encode(tokenizer, (const char *)ids.data, ids.size, false, &text) != COT_OK) abort();
    model_stream_free(&stream);
    cot_buffer_free(&ids);
    cot_buffer_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char *const families[] = {"gpt2",   "qwen35",  "deepseek3", "deepseek-llm",
                                           "llama2", "mixtral", "metaspace"};
    static model_tokenizer_t *loaded[sizeof families / sizeof *families];
    if (bytes == 0) return 0;
    size_t choice = data[0] % (sizeof families / sizeof *families + 1);
    if (choice == sizeof families / sizeof *families) {
        load_bytes(data + 1, bytes - 1);
        return 0;
    }
    if (loaded[choice] == NULL) {
        char directory[512];
        cot_json_setup();
        snprintf(directory, sizeof directory, "%s/tests/fixtures/tokenizer/%s", COTERIE_SOURCE_DIR, families[choice]);
        if (model_tokenizer_load(directory, &loaded[choice]) != COT_OK) abort();
    }
    encode_bytes(loaded[choice], data + 1, bytes - 1);
    return 0;
}

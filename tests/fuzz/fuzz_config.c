/* Any text as a model's config.json: refused, or a configuration within the limits. */
#include "base/json.h"
#include "base/memory.h"
#include "model/config.h"
#include "tests/fuzz/input.h"

static char folder[] = "/tmp/fuzz-config.XXXXXX", name[64];

static void remove_folder(void)
{
    unlink(name);
    rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = input_file(data, size);
    if (name[0] == '\0') {
        cot_json_setup();
        if (mkdtemp(folder) == NULL) abort();
        snprintf(name, sizeof(name), "%s/config.json", folder);
        if (symlink(path, name) != 0) abort();
        atexit(remove_folder);
    }
    size_t live = cot_memory_live_blocks();
    static model_config_t config;
    if (model_config_load(folder, &config) == COT_OK) {
        uint32_t context;
        if (config.layers > MODEL_MAX_LAYERS || model_config_moe_layers(&config) > config.layers) abort();
        if (model_config_context(&config, 0, &context) == COT_OK && context > 8192) abort();
        (void)model_config_expert_bytes(&config, 2);
    }
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}

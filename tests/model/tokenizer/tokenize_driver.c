/* The command `coterie tokenize` alone, without the engine: for tools/tokenizer/check_real.py. */
#include "base/json.h"
#include "base/log.h"
#include "model/tokenize_command.h"

int main(int argc, char **argv)
{
    cot_json_setup();
    cot_settings_t *settings = NULL;
    cot_status_t status = cot_settings_parse(COT_CMD_TOKENIZE, argc - 1, argv + 1, &settings);
    if (status != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return cot_exit_code(status);
    }
    int code = model_tokenize_command(settings);
    cot_settings_destroy(settings);
    return code;
}

/* Settings of a stranger: as the words of a command line, whose first byte chooses the command, and as what rank 0
 * sends. What is accepted can be read and packed, and comes back the same. */
#include "base/memory.h"
#include "base/settings.h"
#include "tests/fuzz/input.h"

#include <string.h>

enum { WORDS_MAX = 300 };

static void read_all(const cot_settings_t *settings)
{
    for (int id = 0; id < COT_SET_COUNT; id++) {
        if (cot_settings_string(settings, (cot_setting_t)id) == NULL) abort();
        if (cot_settings_int(settings, (cot_setting_t)id) < 0) abort();
        (void)cot_settings_number(settings, (cot_setting_t)id);
        (void)cot_settings_bytes(settings, (cot_setting_t)id);
        (void)cot_settings_switch(settings, (cot_setting_t)id);
    }
}

static void pack_twice(const cot_settings_t *settings)
{
    cot_buffer_t first = {0}, second = {0};
    cot_settings_t *copy = NULL;
    if (cot_settings_pack(settings, &first) != COT_OK) abort();
    if (cot_settings_unpack(first.data, first.size, &copy) != COT_OK) abort();
    if (cot_settings_pack(copy, &second) != COT_OK) abort();
    if (first.size != second.size || (first.size > 0 && memcmp(first.data, second.data, first.size) != 0)) abort();
    cot_settings_destroy(copy);
    cot_buffer_free(&first);
    cot_buffer_free(&second);
}

static void parse_words(uint32_t command, char *text, size_t size)
{
    static char *words[WORDS_MAX];
    int count = 0;
    for (char *word = text; word < text + size && count < WORDS_MAX; word += strlen(word) + 1) words[count++] = word;
    cot_settings_t *settings = NULL;
    if (cot_settings_parse(command, count, words, &settings) == COT_OK) {
        read_all(settings);
        pack_twice(settings);
    }
    cot_settings_destroy(settings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t live = cot_memory_live_blocks();
    cot_settings_t *settings = NULL;
    if (cot_settings_unpack(data, size, &settings) == COT_OK) read_all(settings);
    cot_settings_destroy(settings);
    if (size > 1) {
        char *text = cot_alloc(size);
        if (text == NULL) abort();
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        parse_words(1U << data[0] % 9, text, size - 1);
        cot_free(text);
    }
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}

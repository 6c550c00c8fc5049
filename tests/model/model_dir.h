/* A model directory of a test's own: a fixture's files, changed. */
#ifndef TESTS_MODEL_MODEL_DIR_H
#define TESTS_MODEL_MODEL_DIR_H

#include "tests/temporary.h"

#include "base/file.h"
#include "base/json.h"
#include "model/config.h"

#define MODEL_FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/models/"

static inline void model_dir_path(const char *directory, const char *name, char path[400])
{
    snprintf(path, 400, "%s/%s", directory, name);
}

/* Copies the files of a fixture. */
static inline void model_dir_copy(const char *fixture, const char *directory)
{
    char command[800];
    snprintf(command, sizeof(command), "rm -f '%s'/* && cp " MODEL_FIXTURES "%s/* '%s' && chmod 600 '%s'/*", directory,
             fixture, directory, directory);
    assert_int_equal(system(command), 0);
}

/* Writes config.json: the fixture's, with the keys of `patch` (a JSON object) set and the key `drop` (or NULL) gone. */
static inline void model_dir_config(const char *fixture, const char *patch, const char *drop, const char *directory)
{
    char path[400];
    json_t *root = NULL, *changes = NULL;
    snprintf(path, sizeof(path), MODEL_FIXTURES "%s/config.json", fixture);
    assert_ok(cot_json_load_file(path, 1 << 20, &root));
    assert_ok(cot_json_load_bytes(patch, strlen(patch), "patch", &changes));
    assert_int_equal(json_object_update(root, changes), 0);
    if (drop != NULL) assert_int_equal(json_object_del(root, drop), 0);
    model_dir_path(directory, "config.json", path);
    assert_int_equal(json_dump_file(root, path, JSON_INDENT(1)), 0);
    json_decref(root);
    json_decref(changes);
}

static inline void model_dir_write(const char *directory, const char *name, const char *text)
{
    char path[400];
    model_dir_path(directory, name, path);
    temporary_write(path, text, strlen(text));
}

#endif

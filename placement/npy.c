#include "placement/npy.h"

#include "base/buffer.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6U
#define ALIGNMENT 64U /* of the data, in files that numpy writes */

void place_npy_close(place_npy_t *npy)
{
    cot_map_close(&npy->map);
}

/* ---- the header: a Python dictionary of three known keys ---- */

typedef struct {
    const char *at, *end;
    const uint8_t *file; /* for byte offsets in errors */
} cursor_t;

static cot_status_t fail_header(const cursor_t *cursor, const char *wanted)
{
    return cot_fail(COT_ERR_FORMAT, "byte %zu: the header should go on with %s",
                    (size_t)((const uint8_t *)cursor->at - cursor->file), wanted);
}

static void skip_space(cursor_t *cursor)
{
    while (cursor->at < cursor->end && isspace((unsigned char)*cursor->at)) cursor->at++;
}

static bool take(cursor_t *cursor, const char *word)
{
    size_t length = strlen(word);
    skip_space(cursor);
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0) return false;
    cursor->at += length;
    return true;
}

/* A quoted word of at most 31 characters. */
static bool take_quoted(cursor_t *cursor, char word_out[32])
{
    skip_space(cursor);
    if (cursor->at >= cursor->end || (*cursor->at != '\'' && *cursor->at != '"')) return false;
    const char *begin = cursor->at + 1;
    const char *close = memchr(begin, *cursor->at, (size_t)(cursor->end - begin));
    if (close == NULL || close - begin > 31) return false;
    memcpy(word_out, begin, (size_t)(close - begin));
    word_out[close - begin] = '\0';
    cursor->at = close + 1;
    return true;
}

/* "<i4" and the like. */
static cot_status_t read_type(cursor_t *cursor, place_npy_t *npy)
{
    char word[32];
    if (!take_quoted(cursor, word))
        return cot_fail(COT_ERR_UNSUPPORTED, "holds records, not an array of numbers: save one array of integers");
    bool single = word[0] == '|' && (strcmp(word, "|i1") == 0 || strcmp(word, "|u1") == 0);
    bool little = word[0] == '<' && word[1] != '\0' && word[2] != '\0' && word[3] == '\0' &&
                  ((strchr("iu", word[1]) != NULL && strchr("1248", word[2]) != NULL) ||
                   (word[1] == 'f' && strchr("48", word[2]) != NULL));
    if (!single && !little)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the type '%s' is not supported: little-endian integers (<i4, <i8, <u2, …) or floats (<f4, "
                        "<f8) of whole numbers are; save array.astype('<i8')",
                        word);
    npy->kind = word[1];
    npy->item_bytes = (uint32_t)(word[2] - '0');
    return COT_OK;
}

static cot_status_t read_shape(cursor_t *cursor, place_npy_t *npy)
{
    if (!take(cursor, "(")) return fail_header(cursor, "a shape in parentheses");
    npy->count = 1;
    while (!take(cursor, ")")) {
        uint64_t size = 0;
        skip_space(cursor);
        if (npy->dims == PLACE_NPY_DIMS)
            return cot_fail(COT_ERR_UNSUPPORTED, "has more than %d dimensions", PLACE_NPY_DIMS);
        if (cursor->at >= cursor->end || !isdigit((unsigned char)*cursor->at)) return fail_header(cursor, "a size");
        for (; cursor->at < cursor->end && isdigit((unsigned char)*cursor->at); cursor->at++)
            if (__builtin_mul_overflow(size, 10, &size) ||
                __builtin_add_overflow(size, (uint64_t)(*cursor->at - '0'), &size))
                return fail_header(cursor, "a size that a file can have");
        if (__builtin_mul_overflow(npy->count, size, &npy->count))
            return fail_header(cursor, "sizes that a file can have");
        npy->shape[npy->dims++] = size;
        if (!take(cursor, ",") && (cursor->at >= cursor->end || *cursor->at != ')'))
            return fail_header(cursor, "a comma or a closing parenthesis");
    }
    return COT_OK;
}

static cot_status_t read_entry(cursor_t *cursor, place_npy_t *npy, uint32_t *seen)
{
    char key[32];
    if (!take_quoted(cursor, key) || !take(cursor, ":")) return fail_header(cursor, "a key in quotes and a colon");
    if (strcmp(key, "descr") == 0) {
        *seen |= 1;
        return read_type(cursor, npy);
    }
    if (strcmp(key, "shape") == 0 && (*seen & 2) == 0) {
        *seen |= 2;
        return read_shape(cursor, npy);
    }
    if (strcmp(key, "fortran_order") != 0) return fail_header(cursor, "descr, fortran_order or shape, each once");
    *seen |= 4;
    npy->fortran_order = take(cursor, "True");
    return npy->fortran_order || take(cursor, "False") ? COT_OK : fail_header(cursor, "True or False");
}

static cot_status_t read_dictionary(cursor_t cursor, place_npy_t *npy)
{
    uint32_t seen = 0;
    if (!take(&cursor, "{")) return fail_header(&cursor, "{");
    while (!take(&cursor, "}")) {
        COT_TRY(read_entry(&cursor, npy, &seen));
        if (!take(&cursor, ",") && (cursor.at >= cursor.end || *cursor.at != '}')) return fail_header(&cursor, "}");
    }
    return seen == 7 ? COT_OK : cot_fail(COT_ERR_FORMAT, "the header lacks descr, fortran_order or shape");
}

/* Magic, two bytes of version, the header's length in 2 (version 1) or 4 bytes, the header. */
static cot_status_t read_header(place_npy_t *npy)
{
    const uint8_t *bytes = npy->map.data;
    if (npy->map.bytes < MAGIC_BYTES + 4 || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return cot_fail(COT_ERR_FORMAT, "does not begin like an .npy file");
    uint8_t version = bytes[MAGIC_BYTES];
    if (version < 1 || version > 3)
        return cot_fail(COT_ERR_UNSUPPORTED, "is of .npy version %u; 1 to 3 are supported", version);
    size_t begin = MAGIC_BYTES + (version == 1 ? 4 : 6);
    if (npy->map.bytes < begin) return cot_fail(COT_ERR_FORMAT, "is cut short in its header");
    uint64_t length = bytes[8] | (uint64_t)bytes[9] << 8;
    if (version > 1) length |= (uint64_t)bytes[10] << 16 | (uint64_t)bytes[11] << 24;
    if (length > npy->map.bytes - begin) return cot_fail(COT_ERR_FORMAT, "is cut short in its header");
    const char *text = (const char *)bytes + begin;
    COT_TRY(read_dictionary((cursor_t){text, text + length, bytes}, npy));
    npy->data_begin = begin + length;
    uint64_t wanted = 0;
    if (__builtin_mul_overflow(npy->count, npy->item_bytes, &wanted) || wanted != npy->map.bytes - npy->data_begin)
        return cot_fail(COT_ERR_FORMAT, "its shape takes %llu numbers of %u bytes, %llu bytes follow the header",
                        (unsigned long long)npy->count, npy->item_bytes,
                        (unsigned long long)(npy->map.bytes - npy->data_begin));
    return COT_OK;
}

cot_status_t place_npy_open(const char *path, place_npy_t *npy_out)
{
    place_npy_t npy = {0};
    COT_TRY(cot_map_open(path, &npy.map));
    cot_status_t status = read_header(&npy);
    if (status != COT_OK) {
        place_npy_close(&npy);
        return cot_fail_in(status, "%s", path);
    }
    *npy_out = npy;
    return COT_OK;
}

/* ---- elements ---- */

/* Where the element of a row-major index lies among the file's. */
static uint64_t place_in_file(const place_npy_t *npy, uint64_t index)
{
    if (!npy->fortran_order) return index;
    uint64_t place = 0;
    uint64_t position[PLACE_NPY_DIMS];
    for (uint32_t d = npy->dims; d-- > 0; index /= npy->shape[d]) position[d] = index % npy->shape[d];
    for (uint32_t d = npy->dims; d-- > 0;) place = place * npy->shape[d] + position[d];
    return place;
}

static bool read_float(const uint8_t *bytes, uint32_t width, int64_t *value_out)
{
    float narrow;
    double wide;
    if (width == 4) {
        memcpy(&narrow, bytes, sizeof(narrow));
        wide = (double)narrow;
    } else {
        memcpy(&wide, bytes, sizeof(wide));
    }
    if (!(wide > -0x1p63 && wide < 0x1p63) || wide != floor(wide)) return false;
    *value_out = (int64_t)wide;
    return true;
}

static bool read_integer(const uint8_t *bytes, uint32_t width, bool is_signed, int64_t *value_out)
{
    uint64_t value = 0;
    for (uint32_t b = width; b-- > 0;) value = value << 8 | bytes[b];
    if (is_signed && width < 8 && (bytes[width - 1] & 0x80) != 0) value |= UINT64_MAX << (8 * width);
    if (!is_signed && value > INT64_MAX) return false;
    memcpy(value_out, &value, sizeof(value));
    return true;
}

cot_status_t place_npy_integer(const place_npy_t *npy, uint64_t index, int64_t *value_out)
{
    uint64_t offset = npy->data_begin + place_in_file(npy, index) * npy->item_bytes;
    const uint8_t *bytes = npy->map.data + offset;
    bool whole = npy->kind == 'f' ? read_float(bytes, npy->item_bytes, value_out)
                                  : read_integer(bytes, npy->item_bytes, npy->kind == 'i', value_out);
    return whole ? COT_OK
                 : cot_fail(COT_ERR_FORMAT, "byte %llu: the number there is not a whole number within 64 bits",
                            (unsigned long long)offset);
}

/* ---- writing ---- */

/* Magic, version, the header's length, the header: padded so that the numbers begin at a multiple of ALIGNMENT. */
static cot_status_t put_header(cot_buffer_t *out, uint32_t dims, const uint64_t *shape)
{
    enum { FIXED = MAGIC_BYTES + 4 };
    COT_TRY(cot_buffer_append(out, MAGIC "\x01\x00\x00", FIXED));
    COT_TRY(cot_buffer_printf(out, "{'descr': '<i8', 'fortran_order': False, 'shape': ("));
    for (uint32_t d = 0; d < dims; d++)
        COT_TRY(cot_buffer_printf(out, d > 0 ? ", %llu" : "%llu", (unsigned long long)shape[d]));
    COT_TRY(cot_buffer_printf(out, dims == 1 ? ",), }" : "), }"));
    while ((out->size + 1) % ALIGNMENT != 0) COT_TRY(cot_buffer_append(out, " ", 1));
    COT_TRY(cot_buffer_append(out, "\n", 1));
    out->data[MAGIC_BYTES + 2] = (uint8_t)(out->size - FIXED);
    out->data[MAGIC_BYTES + 3] = (uint8_t)((out->size - FIXED) >> 8);
    return COT_OK;
}

cot_status_t place_npy_save(const char *path, const int64_t *values, uint32_t dims, const uint64_t *shape)
{
    cot_buffer_t bytes = {0};
    uint64_t count = 1;
    for (uint32_t d = 0; d < dims; d++) count *= shape[d];
    cot_status_t status = put_header(&bytes, dims, shape);
    if (status == COT_OK) status = cot_buffer_append(&bytes, values, count * sizeof(*values));
    if (status == COT_OK) status = cot_file_write(path, bytes.data, bytes.size);
    cot_buffer_free(&bytes);
    return status;
}

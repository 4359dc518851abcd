/* yaml.h - YAML as a tree of JSON values, and back. One document, no tags, no aliases, unique keys; plain scalars are typed by
 * YAML 1.2's core schema (null, booleans, whole numbers, numbers), anything else and anything quoted is text. JSON is YAML too.
 */
#ifndef SPD_YAML_H
#define SPD_YAML_H

#include "pva/error.h"

#include <jansson.h>

/* *lines: object from dotted path to line, for messages; may be NULL. */
int spd_yaml_parse(const char *text, const char *name, json_t **out, json_t **lines, struct pva_error *err);
int spd_yaml_read(const char *path, json_t **out, json_t **lines, struct pva_error *err);
char *spd_yaml_print(const json_t *value); /* block style; the caller frees it */
/* Fails with "name:line: path: text"; the line is left out where it is not known. */
int spd_yaml_fail(const json_t *lines, const char *name, const char *path, struct pva_error *err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

#endif

#include "pva/direction.h"

#include "pva/npz.h"
#include "pva/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pva_direction_source_name(enum pva_direction_source s) {
    static const char *const names[] = {"latent", "file", "random", "values"};
    return names[s];
}

/* Takes over `values` [d_model]. */
static int normalise(float *values, int64_t d_model, struct pva_direction *d, struct pva_error *err) {
    double sum = 0;
    for (int64_t i = 0; i < d_model; i++) sum += (double)values[i] * values[i];
    d->length = sqrt(sum);
    if (!isfinite(d->length) || d->length <= 0) {
        free(values);
        return pva_fail(err, PVA_INPUT, "%s: %s", d->name, d->length == 0 ? "a direction of length 0" : "a value is not a finite number");
    }
    for (int64_t i = 0; i < d_model; i++) values[i] = (float)(values[i] / d->length);
    d->d_model = d_model;
    d->sign = 1;
    d->unit = values;
    return PVA_OK;
}

static float *room_for(int64_t d_model, struct pva_error *err) {
    float *values = malloc((size_t)d_model * sizeof *values);
    if (!values) pva_fail(err, PVA_IO, "out of memory");
    return values;
}

int pva_direction_from_latent(const struct pva_sae *sae, int layer, int64_t latent, struct pva_direction *out, struct pva_error *err) {
    *out = (struct pva_direction){.source = PVA_DIRECTION_LATENT, .layer = layer, .number = latent};
    snprintf(out->name, sizeof out->name, "L%d-%lld", layer, (long long)latent);
    snprintf(out->formula, sizeof out->formula, "W_dec[%lld] / |W_dec[%lld]|", (long long)latent, (long long)latent);
    if (latent < 0 || latent >= pva_sae_n_latents(sae))
        return pva_fail(err, PVA_INPUT, "layer %d has latents 0 to %lld, there is no %lld", layer, (long long)pva_sae_n_latents(sae) - 1, (long long)latent);
    float *values = room_for(pva_sae_d_model(sae), err);
    if (!values) return err->code;
    if (pva_sae_decoder_row(sae, latent, values, err)) {
        free(values);
        return err->code;
    }
    return normalise(values, pva_sae_d_model(sae), out, err);
}

int pva_direction_from_file(const char *path, int layer, int64_t d_model, struct pva_direction *out, struct pva_error *err) {
    const char *slash = strrchr(path, '/');
    int64_t shape[PVA_MAX_DIMS], n = 1;
    int n_dims = 0;
    float *values = NULL;
    *out = (struct pva_direction){.source = PVA_DIRECTION_FILE, .layer = layer, .number = -1};
    snprintf(out->name, sizeof out->name, "%.50s at L%d", slash ? slash + 1 : path, layer);
    snprintf(out->formula, sizeof out->formula, "v / |v|, v = %.120s", path);
    if (pva_npy_read(path, &values, shape, &n_dims, err)) return err->code;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    if (n != d_model) {
        free(values);
        return pva_fail(err, PVA_INPUT, "%s: has %lld numbers, expected d_model = %lld", path, (long long)n, (long long)d_model);
    }
    return normalise(values, d_model, out, err);
}

int pva_direction_random(uint64_t seed, int layer, int64_t number, int64_t d_model, struct pva_direction *out, struct pva_error *err) {
    *out = (struct pva_direction){.source = PVA_DIRECTION_RANDOM, .layer = layer, .number = number};
    snprintf(out->name, sizeof out->name, "random %lld at L%d", (long long)number, layer);
    snprintf(out->formula, sizeof out->formula, "v / |v|, v ~ N(0, 1): seed %llu, number %lld", (unsigned long long)seed, (long long)number);
    float *values = room_for(d_model, err);
    if (!values) return err->code;
    for (int64_t i = 0; i < d_model; i++)
        values[i] = (float)pva_rng_normal(seed, PVA_RNG_CONTROL, (uint32_t)number, (uint32_t)layer, (uint32_t)i);
    return normalise(values, d_model, out, err);
}

int pva_direction_from_values(const float *values, int64_t d_model, int layer, const char *name, struct pva_direction *out, struct pva_error *err) {
    *out = (struct pva_direction){.source = PVA_DIRECTION_VALUES, .layer = layer, .number = -1};
    snprintf(out->name, sizeof out->name, "%.50s at L%d", name, layer);
    snprintf(out->formula, sizeof out->formula, "v / |v|, v = %.100s", name);
    float *copy = room_for(d_model, err);
    if (!copy) return err->code;
    memcpy(copy, values, (size_t)d_model * sizeof *copy);
    return normalise(copy, d_model, out, err);
}

void pva_direction_flip(struct pva_direction *d) {
    char name[sizeof d->name];
    for (int64_t i = 0; i < d->d_model; i++) d->unit[i] = -d->unit[i];
    d->sign = -d->sign;
    memcpy(name, d->name, sizeof name);
    if (name[0] == '-') snprintf(d->name, sizeof d->name, "%s", name + 1);
    else snprintf(d->name, sizeof d->name, "-%.60s", name);
}

void pva_direction_free(struct pva_direction *d) {
    free(d->unit);
    d->unit = NULL;
}

const char *pva_coefficient_units_name(enum pva_coefficient_units u) {
    static const char *const names[] = {"norm", "raw", "activation"};
    return names[u];
}

int pva_coefficient_units_parse(const char *name, enum pva_coefficient_units *out, struct pva_error *err) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, pva_coefficient_units_name((enum pva_coefficient_units)i))) {
            *out = (enum pva_coefficient_units)i;
            return PVA_OK;
        }
    return pva_fail(err, PVA_USAGE, "units \"%s\" are unknown: norm, raw, activation", name);
}

/* ---- --steer ---- */

static const char *const keys[] = {"layer", "latent", "vector", "coefficient", "units", "scale", "positions", "mode", "sign"};
enum key { LAYER, LATENT, VECTOR, COEFFICIENT, UNITS, SCALE, POSITIONS, MODE, SIGN, N_KEYS };

static int read_number(const char *key, const char *text, double *out, struct pva_error *err) {
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || !isfinite(*out)) return pva_fail(err, PVA_USAGE, "%s=%s: a number is expected", key, text);
    return PVA_OK;
}

static int read_count(const char *key, const char *text, double most, int64_t *out, struct pva_error *err) {
    double value;
    if (read_number(key, text, &value, err)) return err->code;
    if (value < 0 || value > most || value != floor(value)) return pva_fail(err, PVA_USAGE, "%s=%s: a whole number from 0 is expected", key, text);
    *out = (int64_t)value;
    return PVA_OK;
}

static int read_value(struct pva_steer *s, enum key key, const char *text, struct pva_error *err) {
    int64_t count = 0;
    double number = 0;
    switch (key) {
    case LAYER:
        if (!read_count(keys[key], text, 1e6, &count, err)) s->layer = (int)count;
        break;
    case LATENT: read_count(keys[key], text, 1e12, &s->latent, err); break;
    case VECTOR:
        if (strlen(text) >= sizeof s->path) return pva_fail(err, PVA_USAGE, "vector: the name is too long");
        snprintf(s->path, sizeof s->path, "%s", text);
        break;
    case COEFFICIENT: read_number(keys[key], text, &s->coefficient, err); break;
    case UNITS: pva_coefficient_units_parse(text, &s->units, err); break;
    case SCALE: read_number(keys[key], text, &s->scale, err); break;
    case POSITIONS:
        if (pva_positions_parse(text, &s->positions, err)) break;
        if (s->positions > PVA_POSITIONS_GENERATED) pva_fail(err, PVA_USAGE, "positions=%s: all, last or generated", text);
        break;
    case MODE:
        if (!strcmp(text, "add")) s->action = PVA_HOOK_ADD;
        else if (!strcmp(text, "ablate")) s->action = PVA_HOOK_ABLATE;
        else pva_fail(err, PVA_USAGE, "mode=%s: add or ablate", text);
        break;
    case SIGN:
        if (!read_number(keys[key], text, &number, err) && number != 1 && number != -1) pva_fail(err, PVA_USAGE, "sign=%s: 1 or -1", text);
        s->sign = (int)number;
        break;
    case N_KEYS: break;
    }
    if (err->code) err->code = PVA_USAGE;
    return err->code;
}

int pva_steer_parse(const char *text, struct pva_steer *out, struct pva_error *err) {
    char copy[2048], *save = NULL;
    unsigned seen = 0;
    *out = (struct pva_steer){.latent = -1, .scale = NAN, .units = PVA_UNITS_RAW, .positions = PVA_POSITIONS_ALL, .action = PVA_HOOK_ADD, .sign = 1};
    if (strlen(text) >= sizeof copy) return pva_fail(err, PVA_USAGE, "--steer: too long");
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(word, '=');
        int key = 0;
        if (!equals) return pva_fail(err, PVA_USAGE, "--steer: \"%s\": KEY=VALUE is expected", word);
        *equals = 0;
        while (key < N_KEYS && strcmp(keys[key], word)) key++;
        if (key == N_KEYS)
            return pva_fail(err, PVA_USAGE, "--steer: \"%s\" is unknown: layer, latent, vector, coefficient, units, scale, positions, mode, sign", word);
        if (seen >> key & 1) return pva_fail(err, PVA_USAGE, "--steer: %s is there twice", word);
        seen |= 1u << key;
        if (read_value(out, (enum key)key, equals + 1, err)) return pva_error_prefix(err, "--steer");
    }
    if (!(seen >> LAYER & 1)) return pva_fail(err, PVA_USAGE, "--steer: layer=L is missing");
    if ((seen >> LATENT & 1) == (seen >> VECTOR & 1)) return pva_fail(err, PVA_USAGE, "--steer: latent=J or vector=FILE is expected, one of them");
    if (!(seen >> COEFFICIENT & 1) && out->action == PVA_HOOK_ADD) return pva_fail(err, PVA_USAGE, "--steer: coefficient=C is missing");
    if (out->units == PVA_UNITS_RAW) {
        if (seen >> SCALE & 1) return pva_fail(err, PVA_USAGE, "--steer: scale belongs to units=norm or units=activation");
        out->scale = 1;
    } else if (!(seen >> SCALE & 1)) {
        return pva_fail(err, PVA_USAGE, "--steer: units=%s needs scale=S, what one unit is (phase 2 has it)", pva_coefficient_units_name(out->units));
    }
    return PVA_OK;
}

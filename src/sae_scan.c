/* Finding autoencoders below a directory: GemmaScope's layer_N/width_W/average_l0_X/params.npz, and SAELens' weights in folders that name the layer the same way
 * or as blocks.N.hook_resid_post. */
#include "pva/log.h"
#include "pva/sae.h"

#include "input_file.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The L0 that each release names canonical: of the layers in order from 0, or layer:L0. (From SAELens' list of pretrained autoencoders.) */
static const struct {
    const char *release, *width, *l0;
} canonical_table[] = {
    {"gemma-scope-2b-pt-res", "16k", "105 102 141 59 124 68 70 69 71 73 77 80 82 84 84 78 78 77 74 73 71 70 72 75 73 116"},
    {"gemma-scope-2b-pt-res", "32k", "12:76"},
    {"gemma-scope-2b-pt-res", "65k",
     "73 121 77 89 89 105 107 107 111 118 128 70 72 75 73 127 128 125 116 115 114 111 116 123 124 93"},
    {"gemma-scope-2b-pt-res", "262k", "12:121"},
    {"gemma-scope-2b-pt-res", "524k", "12:115"},
    {"gemma-scope-2b-pt-res", "1m", "5:114 12:107 19:88"},
    {"gemma-scope-9b-pt-res", "16k",
     "129 69 67 90 91 77 93 92 99 100 113 118 130 132 67 131 75 73 71 132 68 129 123 120 114 114 116 118 "
     "119 119 120 114 111 114 114 120 120 124 128 131 125 113"},
    {"gemma-scope-9b-pt-res", "32k", "20:57"},
    {"gemma-scope-9b-pt-res", "65k", "20:55"},
    {"gemma-scope-9b-pt-res", "131k",
     "41 56 70 103 101 94 120 119 72 75 84 88 96 99 105 103 121 117 113 110 114 109 105 101 97 96 97 96 "
     "98 97 95 92 88 91 89 94 93 96 101 99 94 84"},
    {"gemma-scope-9b-pt-res", "524k", "20:48"},
    {"gemma-scope-9b-pt-res", "1m", "9:122 20:101 31:77"},
    {"gemma-scope-9b-it-res", "16k", "9:88 20:91 31:76"},
    {"gemma-scope-9b-it-res", "131k", "9:121 20:81 31:109"},
    {"gemma-scope-27b-pt-res", "131k", "10:106 22:82 34:72"},
};

struct candidate {
    char *path;
    int layer;
    char width[16]; /* "16k"; "" when the path does not say */
    double l0;      /* NaN when the path does not say */
    int canonical;  /* the path says so itself */
};

struct search {
    struct candidate *found;
    size_t n, room;
};

/* ---- what a path says ---- */

/* The number behind `prefix` and before `suffix` if the component consists of nothing else. */
static int numbered(const char *component, const char *prefix, const char *suffix, double *out) {
    size_t n = strlen(prefix);
    if (strncmp(component, prefix, n) || component[n] < '0' || component[n] > '9') return 0;
    char *end;
    double v = *suffix ? (double)strtol(component + n, &end, 10) : strtod(component + n, &end); /* a number's own dot must not take the suffix's */
    if (strcmp(end, suffix) || !(v < 1e9)) return 0;
    *out = v;
    return 1;
}

static void read_path(const char *path, struct candidate *c) {
    char copy[4096];
    double v;
    snprintf(copy, sizeof copy, "%s", path);
    c->layer = -1, c->l0 = NAN;
    for (char *rest = copy, *part; (part = strsep(&rest, "/"));) {
        if (numbered(part, "layer_", "", &v) || numbered(part, "blocks.", ".hook_resid_post", &v)) c->layer = (int)v;
        else if (!strncmp(part, "width_", 6)) snprintf(c->width, sizeof c->width, "%.15s", part + 6);
        else if (numbered(part, "average_l0_", "", &v)) c->l0 = v;
        else if (!strcmp(part, "canonical")) c->canonical = 1;
    }
}

static int add(struct search *s, const char *path, struct pva_error *err) {
    struct candidate c = {0};
    read_path(path, &c);
    if (c.layer < 0) return PVA_OK;
    if (s->n == s->room) {
        size_t room = 2 * s->room + 64;
        struct candidate *more = realloc(s->found, room * sizeof *more);
        if (!more) return pva_fail(err, PVA_IO, "out of memory");
        s->found = more, s->room = room;
    }
    if (!(c.path = strdup(path))) return pva_fail(err, PVA_IO, "out of memory");
    s->found[s->n++] = c;
    return PVA_OK;
}

/* Folders of a download's own bookkeeping are passed over: names with a dot in front, and the hub's cache of unnamed files. */
static int walk(struct search *s, const char *directory, int depth, struct pva_error *err) {
    enum { MOST_DEPTH = 8 };
    DIR *d = opendir(directory);
    if (!d) {
        if (depth) return PVA_OK; /* not ours to read: if a layer is missing because of it, that is said */
        return pva_fail(err, PVA_INPUT, "%s: cannot be read as a directory of autoencoders", directory);
    }
    for (struct dirent *entry; !err->code && (entry = readdir(d));) {
        char path[3072];
        if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "blobs")) continue;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) >= sizeof path) continue;
        if (file_is_directory(path)) {
            if (depth < MOST_DEPTH) walk(s, path, depth + 1, err);
        } else if (!strcmp(entry->d_name, "params.npz") || !strcmp(entry->d_name, "sae_weights.safetensors")) {
            add(s, path, err);
        }
    }
    closedir(d);
    return err->code;
}

static int by_path(const void *a, const void *b) { return strcmp(((const struct candidate *)a)->path, ((const struct candidate *)b)->path); }

/* ---- choosing ---- */

/* The release's own choice; NaN when its list does not have this layer and width. */
static double listed_l0(const char *release_path, const char *width, int layer) {
    for (size_t i = 0; i < sizeof canonical_table / sizeof *canonical_table; i++) {
        if (strcmp(canonical_table[i].width, width) || !strstr(release_path, canonical_table[i].release)) continue;
        const char *p = canonical_table[i].l0;
        for (int at = 0; *p; at++) {
            char *end;
            long v = strtol(p, &end, 10), this_layer = at;
            if (*end == ':') this_layer = v, v = strtol(end + 1, &end, 10);
            if (this_layer == layer) return (double)v;
            p = *end ? end + 1 : end;
        }
    }
    return NAN;
}

/* How far a candidate is from what was asked for; the smallest wins, then the smaller L0, then the path's order. */
static double distance(const struct candidate *c, const char *l0, double wanted) {
    if (isnan(c->l0)) return c->canonical && !strcmp(l0, "canonical") ? 0 : 1e300;
    if (!strcmp(l0, "smallest")) return c->l0;
    if (!strcmp(l0, "largest")) return 1e12 - c->l0;
    return fabs(c->l0 - wanted);
}

static int fits(const struct candidate *c, int layer, const char *width) { return c->layer == layer && (!width || !c->width[0] || !strcmp(c->width, width)); }

/* The widths there are, for messages and for finding the only one: "16k, 131k". */
static int list_widths(const struct search *s, const unsigned char *layers, int n_layers, int layer, char *out, size_t size) {
    size_t n = 0;
    int count = 0;
    out[0] = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct candidate *c = &s->found[i];
        if (layer >= 0 ? c->layer != layer : c->layer >= n_layers || !layers[c->layer]) continue;
        size_t j = 0;
        for (; j < i; j++)
            if (!strcmp(s->found[j].width, c->width) && (layer >= 0 ? s->found[j].layer == layer : s->found[j].layer < n_layers && layers[s->found[j].layer])) break;
        if (j < i) continue;
        if (n < size) n += (size_t)snprintf(out + n, size - n, count ? ", %s" : "%s", c->width[0] ? c->width : "(unnamed)");
        count++;
    }
    return count;
}

static int fail_missing(const char *directory, const struct search *s, int layer, const char *width, struct pva_error *err) {
    char widths[200];
    if (list_widths(s, NULL, 0, layer, widths, sizeof widths))
        return pva_fail(err, PVA_INPUT, "%.250s: layer %d has no autoencoder of width %.20s; its widths: %s", directory, layer, width ? width : "any", widths);
    return pva_fail(err, PVA_INPUT, "%.250s: layer %d has no autoencoder; expected layer_%d/width_%.20s/average_l0_X/params.npz", directory, layer, layer,
                    width ? width : "W");
}

static const struct candidate *choose(const char *release, const struct search *s, int layer, const char *width, const char *l0, double wanted) {
    const struct candidate *best = NULL;
    double listed = NAN, best_distance = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct candidate *c = &s->found[i];
        if (!fits(c, layer, width)) continue;
        if (isnan(wanted)) listed = listed_l0(release, c->width, layer);
        double away = distance(c, l0, !isnan(wanted) ? wanted : !isnan(listed) ? listed : 100);
        if (best && !(away < best_distance) && !(away == best_distance && c->l0 < best->l0)) continue;
        best = c, best_distance = away;
    }
    if (best && !strcmp(l0, "canonical") && !isnan(listed) && best->l0 != listed)
        pva_log(PVA_LOG_WARNING, "layer %d: the canonical average_l0_%.0f is not there; taking %s", layer, listed, best->path);
    return best;
}

static int choose_all(const char *directory, const struct search *s, const char *width, const char *l0, double wanted, int n_layers, const unsigned char *layers,
                      struct pva_sae_file *out, struct pva_error *err) {
    char release[8192], *real = realpath(directory, NULL); /* the release's name may stand in the path, or where a link leads */
    snprintf(release, sizeof release, "%.4000s\n%.4000s", directory, real ? real : "");
    free(real);
    for (int layer = 0; layer < n_layers && !err->code; layer++) {
        memset(&out[layer], 0, sizeof out[layer]);
        out[layer].layer = layer, out[layer].l0 = NAN;
        if (!layers[layer]) continue;
        const struct candidate *c = choose(release, s, layer, width, l0, wanted);
        struct pva_sae *sae = NULL;
        if (!c) return fail_missing(directory, s, layer, width, err);
        if (pva_sae_open(c->path, &sae, err)) return err->code;
        snprintf(out[layer].path, sizeof out[layer].path, "%s", c->path);
        out[layer].l0 = c->l0;
        out[layer].n_latents = pva_sae_n_latents(sae);
        pva_sae_close(&sae);
    }
    return err->code;
}

int pva_sae_scan(const char *directory, const char *width, const char *l0, int n_layers, const unsigned char *layers, struct pva_sae_file *out,
                 struct pva_error *err) {
    struct search s = {0};
    char widths[200], *end = NULL;
    double wanted = NAN;
    if (!l0) l0 = "canonical";
    if (width && !strncmp(width, "width_", 6)) width += 6;
    if (strcmp(l0, "canonical") && strcmp(l0, "smallest") && strcmp(l0, "largest")) {
        wanted = strtod(l0, &end);
        if (end == l0 || *end || !(wanted >= 0)) return pva_fail(err, PVA_USAGE, "l0 \"%.40s\": expected canonical, smallest, largest or a number", l0);
    }
    if (!walk(&s, directory, 0, err)) {
        if (s.n) qsort(s.found, s.n, sizeof *s.found, by_path);
        if (!width && list_widths(&s, layers, n_layers, -1, widths, sizeof widths) > 1)
            pva_fail(err, PVA_USAGE, "%.250s: has several widths, say which: %s", directory, widths);
        else choose_all(directory, &s, width, l0, wanted, n_layers, layers, out, err);
    }
    for (size_t i = 0; i < s.n; i++) free(s.found[i].path);
    free(s.found);
    return err->code;
}

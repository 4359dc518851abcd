/* hook.h - named points of the residual stream and what may be done there.
 *
 * The graph (model.h) passes every point of every layer in every forward pass, prefill and decode alike, and counts its visits; a hook
 * is data, not a callback, so the same hook runs on the CPU and on a GPU.
 *
 *   resid_pre[L]   input of block L
 *   resid_mid[L]   resid_pre[L] + post_attention_layernorm(attention output)
 *   resid_post[L]  resid_mid[L] + post_feedforward_layernorm(mlp output); resid_pre[L+1] is the same stream at the same place
 *
 * At one point hooks act in the order of the list, so a capture listed after a steering sees the steered stream.
 */
#ifndef PVA_HOOK_H
#define PVA_HOOK_H

#include "pva/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pva_point { PVA_RESID_PRE, PVA_RESID_MID, PVA_RESID_POST, PVA_N_POINTS };
const char *pva_point_name(enum pva_point point); /* "resid_pre" */
int pva_point_parse(const char *name, enum pva_point *out, struct pva_error *err);

enum pva_hook_action {
    PVA_HOOK_CAPTURE, /* copy chosen rows of the stream */
    PVA_HOOK_ADD,     /* row += coefficient * direction */
    PVA_HOOK_ABLATE,  /* row -= (row . direction) direction */
};

struct pva_hook {
    enum pva_point point;
    enum pva_hook_action action;
    const unsigned char *layers; /* [n_layers]: 1 where the hook acts */

    /* CAPTURE: `rows` i32 [m, 1] of this pass go to `captured` f32 [n_marked_layers * m, d_model], the marked layers in order. */
    struct pva_tensor rows, captured;

    /* ADD, ABLATE: per row of this pass (backend.h, add_direction); every row has its own direction and coefficient. */
    struct pva_tensor directions, which, coefficients;

    int64_t calls; /* (layer, row) pairs the hook was applied to; added to by the graph */
};

#ifdef __cplusplus
}
#endif
#endif

/* model.h - the graph of a decomposition: target, gates, and one masked network per term of the loss. */
#ifndef SPD_MODEL_H
#define SPD_MODEL_H

#include "engine.h"

/* e: config, target, kernels, C, shortcuts, gate, modules' paths and slots, params and constants are there. Fills the graph, the
 * nodes, groups, draws. */
int spd_model_build(struct spd_engine *e, struct pva_error *err);

#endif

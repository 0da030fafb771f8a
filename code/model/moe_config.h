/* code/model/moe_config.h: from chapters/08-mixture-of-experts-models.md. Edit the chapter, or edit here and run "make untangle". */
/* The section model.moe of a configuration, and two ways of choosing what is in it. */
#ifndef DLS_MODEL_MOE_CONFIG_H
#define DLS_MODEL_MOE_CONFIG_H
#include "model/config.h"
#ifdef __cplusplus
extern "C" {
#endif
/* declare the settings of experts */
/* Few large experts, their weights normalised: Jiang et al. 2024 (Mixtral, section 2). */
dls_moe dls_moe_mixtral(int experts, int chosen, int hidden);

/* Many small experts of which some are shared, sigmoid gates, a bias of the choice:
 * DeepSeek-AI 2024 (DeepSeek-V3, section 2.1.2). */
dls_moe dls_moe_deepseek(int experts, int chosen, int hidden, int shared);

/* Reads model.moe, if it is there. DLS_ERR_INPUT with its line for what can not be. */
dls_status dls_moe_load(dls_transformer_config *c, dls_config *cfg);

/* The key of a field that can not be, and what was expected of it; NULL: all can be. */
const char *dls_moe_problem(const dls_transformer_config *c, char text[160]);

/* Appends "model.moe.KEY=VALUE\n" for every setting of a model with experts. */
void dls_moe_settings(const dls_moe *m, char *text, size_t size);

/* Parameters of one block's router, `experts` of its experts, and its shared ones. */
size_t dls_moe_parameters(const dls_transformer_config *c, int experts);
#ifdef __cplusplus
}
#endif
#endif

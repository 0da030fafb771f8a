/* code/base/suggest.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* The candidate nearest to a misspelt word, for "did you mean". */
#ifndef DLS_BASE_SUGGEST_H
#define DLS_BASE_SUGGEST_H

#ifdef __cplusplus
extern "C" {
#endif

/* The candidate with the fewest edits from `word`; NULL when none is near, that is, when
 * all need more than one edit per three letters (at least one edit is always allowed).
 * Of equals the first. Words beyond 63 bytes are never near. */
const char *dls_suggest(const char *word, const char *const *candidates, int count);

#ifdef __cplusplus
}
#endif
#endif

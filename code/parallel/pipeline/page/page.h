/* code/parallel/pipeline/page/page.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* The functions that the page calls; the test's program calls them too. */
#ifndef DLS_PARALLEL_PIPELINE_PAGE_H
#define DLS_PARALLEL_PIPELINE_PAGE_H

#ifdef __wasm__
#define PAGE_EXPORT(name) __attribute__((export_name(#name)))
#else
#define PAGE_EXPORT(name)
#endif

enum { PAGE_SVG, PAGE_JSON, PAGE_MESSAGE, PAGE_CSV, PAGE_LIST, PAGE_TEXTS };

/* Forgets all answers; room for n bytes of words. */
PAGE_EXPORT(page_words) char *page_words(int n);

/* Reads these words; makes, checks, evaluates and draws, `width` pixels wide. 1 when the
 * request was refused: then the message is there, and no other text. */
PAGE_EXPORT(page_show) int page_show(int n, int width);

/* A text and its size. PAGE_LIST: [{"name":...,"summary":...,"chunks":...}, ...]. */
PAGE_EXPORT(page_text) const char *page_text(int what);
PAGE_EXPORT(page_size) int page_size(int what);

#endif

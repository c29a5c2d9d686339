/* The symbols that assets.c makes the assembler define: private to it. */
#ifndef PD_PAGE_ASSETS_EMBEDDED_H
#define PD_PAGE_ASSETS_EMBEDDED_H

#define PAGE_EMBEDDED(name) extern const char page_##name##_begin[], page_##name##_end[]

PAGE_EMBEDDED(d3_notice);
PAGE_EMBEDDED(d3);
PAGE_EMBEDDED(charts);
PAGE_EMBEDDED(style);
PAGE_EMBEDDED(dashboard_html);
PAGE_EMBEDDED(dashboard);
PAGE_EMBEDDED(report);

#endif

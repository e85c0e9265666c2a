// Types of view.js for the checker in ui/; the vendored files carry none.

import { ComponentChildren } from "preact";

export declare function html(strings: TemplateStringsArray, ...values: unknown[]): ComponentChildren;
export { render } from "preact";
export { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal } from "@preact/signals-core";

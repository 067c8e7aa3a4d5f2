// The views, in the order of the navigation. README.md says what a view is.

import {view as tree} from "./views/tree.js";
import {view as configuration} from "./views/configuration.js";
import {view as lints} from "./views/lints.js";
import {view as requests} from "./views/requests.js";
import {view as routes} from "./views/routes.js";
import {view as upstreams} from "./views/upstreams.js";
import {view as workers} from "./views/workers.js";

export const VIEWS = [tree, requests, routes, upstreams, lints, workers, configuration];

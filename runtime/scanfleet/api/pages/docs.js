"use strict";

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Its badge would send the document to another host.
  validatorUrl: null,
});

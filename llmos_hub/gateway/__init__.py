"""The gateway: OpenAI's API in front of all models.

A request passes through these modules, in this order:

`server`, `asgi`
    uvicorn reads the head from the connection; it becomes a `request.Request`. Nothing below knows of the server.
`app`
    `app.Gateway.handle` finds the request's route, calls its handler, renders errors, writes the access log.
`routes`, `endpoints`
    A route is a method and a path template. Each module of `endpoints` declares the routes that it answers.
`endpoints.inference`, `stages`
    A request to a model runs through the stages authenticate, parse, resolve, authorise, admit, wait, rewrite, forward
    and settle. They use `body` (the model's name), `routing` (the models), `media`, `shares`, `prompt_cache`.
`proxy`
    Forwards the request: it chooses a replica with the model's balancer (`balancers`), sends `heads.EngineRequest`,
    tries another replica if one fails, and passes the answer back through the request's `taps`, such as `renaming`.
`upstream`, `connection`
    Replicas with their pools of connections, and one HTTP/1.1 connection to an engine; `liveness` and `hanging` find
    out when no answer will come.

Beside the requests, `discovery` keeps the table of models equal to the store.
"""

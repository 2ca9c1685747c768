-- Ends the soak of the canaries, or rolls their revision out although they failed.
local revision = (obj.status or {}).updateRevision
if revision == nil or revision == "" then
  error("the object has no update revision to promote")
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["fleet.hlparser.dev/promote"] = revision
return obj

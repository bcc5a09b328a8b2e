from .bundle_files.manifest import check_manifest as check_manifest
from .bundle_files.manifest import write_manifest as write_manifest
from .bundling import export_bundle as export_bundle
from .runtime.bundle import Bundle as Bundle

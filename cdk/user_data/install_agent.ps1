# Installs the agent's bundle into its Python, without a package index. Image builds and user-data use these.
# Windows PowerShell 5.1. Whoever includes this sets $ErrorActionPreference = 'Stop' first.

function Invoke-Native {
    param([string]$Name, [string]$Program, [string[]]$Arguments, [scriptblock]$OnLine = $null)
    if (-not (Test-Path -LiteralPath $Program)) { throw "$Name cannot run: there is no $Program" }
    # Windows PowerShell takes lines on standard error for errors; here the exit code alone decides.
    $ErrorActionPreference = 'Continue'
    $lines = New-Object 'System.Collections.Generic.List[string]'
    & $Program $Arguments 2>&1 | ForEach-Object { $lines.Add("$_"); if ($OnLine) { & $OnLine "$_" } }
    if ($LASTEXITCODE -ne 0) {
        # The reason, not the log lines around it.
        $last = ($lines | Where-Object { -not $_.StartsWith('{') } | Select-Object -Last 5) -join ' | '
        throw "$Name failed with exit code ${LASTEXITCODE}: $last"
    }
}

function Assert-Sha256 {
    param([string]$Path, [string]$Expected)
    $found = (Get-FileHash -LiteralPath $Path -Algorithm SHA256).Hash
    if ($found -ne $Expected) { throw "$Path has the SHA-256 $found, not $Expected" }
}

# Packages from agent-wheels.zip: its wheels, each checked against the hash in its requirements.txt.
function Install-Wheelhouse {
    param([string]$Python, [string]$Archive, [string]$Digest)
    Assert-Sha256 -Path $Archive -Expected $Digest
    $folder = "$Archive.files"
    if (Test-Path -LiteralPath $folder) { Remove-Item -LiteralPath $folder -Recurse -Force }
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    [IO.Compression.ZipFile]::ExtractToDirectory($Archive, $folder)
    Invoke-Native -Name 'pip' -Program $Python -Arguments @(
        '-I', '-m', 'pip', 'install', '--no-index', '--find-links', $folder, '--require-hashes',
        '--no-warn-script-location', '--disable-pip-version-check', '--no-input',
        '--requirement', (Join-Path $folder 'requirements.txt'))
    Remove-Item -LiteralPath $folder -Recurse -Force
}

# The agent itself, a wheel without dependencies.
function Install-Source {
    param([string]$Python, [string]$Wheel, [string]$Digest)
    Assert-Sha256 -Path $Wheel -Expected $Digest
    Invoke-Native -Name 'pip' -Program $Python -Arguments @(
        '-I', '-m', 'pip', 'install', '--no-index', '--no-deps', '--force-reinstall',
        '--no-warn-script-location', '--disable-pip-version-check', '--no-input', $Wheel)
}

# The whole bundle; '' for the archive when its packages are there already. The wheel keeps its file's name: pip
# reads it. The mark is written last: an installation that broke off is none.
function Install-Agent {
    param(
        [string]$Python, [string]$Mark, [string]$Archive, [string]$ArchiveDigest, [string]$Wheel,
        [string]$WheelDigest)
    if (Test-Path -LiteralPath $Mark) { Remove-Item -LiteralPath $Mark -Force }
    if ($Archive) { Install-Wheelhouse -Python $Python -Archive $Archive -Digest $ArchiveDigest }
    Install-Source -Python $Python -Wheel $Wheel -Digest $WheelDigest
    [IO.File]::WriteAllText($Mark, "$ArchiveDigest`r`n$WheelDigest`r`n")
}

# What is installed: the digests of wheelhouse and source, '' each when unknown.
function Read-BundleMark {
    param([string]$Path)
    $lines = @('', '')
    if (Test-Path -LiteralPath $Path) { $lines = @(Get-Content -LiteralPath $Path) + $lines }
    return $lines[0], $lines[1]
}

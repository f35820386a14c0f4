# From Windows' first boot to an agent in service, at each boot anew (persist). docs/boot.md tells the steps.
# The values above this line come from cdk/user_data.py.

$script:InstanceId = ''
$LogFile = Join-Path $Logs 'userdata.jsonl'

# One JSON object a line, as the agent's own logs; the CloudWatch agent ships them.
function Write-Log {
    param([string]$Step, [string]$Message, [string]$Level = 'INFO')
    $line = [ordered]@{
        time = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ss.fffZ')
        level = $Level
        component = 'userdata'
        instance_id = $script:InstanceId
        action = "boot_$Step"
        message = $Message
    }
    Add-LogLine (ConvertTo-Json -InputObject $line -Compress)
}

function Add-LogLine {
    param([string]$Line)
    [IO.File]::AppendAllText($LogFile, "$Line`n")
}

# Windows' network may come up a moment later than this script.
function Get-Answer {
    param([hashtable]$Request)
    for ($try = 1; $try -lt 5; $try++) {
        try { return (Invoke-RestMethod @Request -TimeoutSec 5) } catch { Start-Sleep -Seconds 3 }
    }
    Invoke-RestMethod @Request -TimeoutSec 5
}

function Get-Metadata {
    param([string]$Path)
    Get-Answer @{
        Uri = "$MetadataUrl/latest/meta-data/$Path"
        Headers = @{ 'X-aws-ec2-metadata-token' = $script:Token }
    }
}

# The folder for workspaces, on a disk that was formatted now: no file of another life is left.
function Initialize-Scratch {
    $wanted = if ($ScratchVolume) { '*Elastic B*' } else { '*EC2 NVMe*' }
    $disk = Get-Disk |
        Where-Object { -not $_.IsBoot -and -not $_.IsSystem -and $_.FriendlyName -like $wanted } |
        Sort-Object -Property Size -Descending | Select-Object -First 1
    if (-not $disk) {
        if ($ScratchVolume) { throw 'the scratch volume is not attached' }
        Write-Log -Step 'scratch' -Level 'WARNING' -Message 'no instance store: workspaces are on the root volume'
        return (Join-Path $State 'scratch')
    }
    if ($disk.IsOffline) { Set-Disk -Number $disk.Number -IsOffline $false }
    if ($disk.IsReadOnly) { Set-Disk -Number $disk.Number -IsReadOnly $false }
    if ($disk.PartitionStyle -ne 'RAW') {
        Clear-Disk -Number $disk.Number -RemoveData -RemoveOEM -Confirm:$false
    }
    Initialize-Disk -Number $disk.Number -PartitionStyle GPT
    New-Partition -DiskNumber $disk.Number -UseMaximumSize -DriveLetter S | Out-Null
    Format-Volume -DriveLetter S -FileSystem NTFS -NewFileSystemLabel 'scratch' -Confirm:$false | Out-Null
    return 'S:\scanfleet'
}

function Get-Part {
    param([string]$Bucket, [string]$Key, [string]$Name)
    $path = Join-Path $Downloads $Name
    Read-S3Object -BucketName $Bucket -Key $Key -File $path -Region $Region | Out-Null
    return $path
}

# The bundle of this deployment; what the image holds already is not fetched.
function Update-Agent {
    $wheelhouse, $source = Read-BundleMark -Path $Mark
    if ($wheelhouse -eq $WheelhouseSha256 -and $source -eq $SourceSha256) {
        Write-Log -Step 'agent' -Message 'the image holds this agent'
        return
    }
    New-Item -ItemType Directory -Force -Path $Downloads | Out-Null
    $archive = ''
    if ($wheelhouse -ne $WheelhouseSha256) {
        $archive = Get-Part -Bucket $WheelhouseBucket -Key $WheelhouseKey -Name $WheelhouseName
    }
    $wheel = Get-Part -Bucket $SourceBucket -Key $SourceKey -Name $SourceName
    Install-Agent -Python $Python -Mark $Mark -Archive $archive -ArchiveDigest $WheelhouseSha256 `
        -Wheel $wheel -WheelDigest $SourceSha256
    Remove-Item -LiteralPath $Downloads -Recurse -Force
    Write-Log -Step 'agent' -Message 'agent installed'
}

# An agent completes the terminate hook once it has drained. Where none runs nobody would, and the machine would be
# paid for, and hold its share of the quota, until the hook's time-out.
function Complete-TerminateHook {
    for ($try = 0; $try -lt 20; $try++) {
        $service = Get-Service -Name $ServiceName -ErrorAction SilentlyContinue
        if (-not $service -or $service.Status -eq 'Stopped') {
            try {
                Complete-ASLifecycleAction -AutoScalingGroupName $Fleet -LifecycleHookName $TerminateHook `
                    -InstanceId $script:InstanceId -LifecycleActionResult 'CONTINUE' -Region $Region -Force
                return
            } catch { Write-Warning "nothing waits yet: $($_.Exception.Message)" }
        }
        Start-Sleep -Seconds 15
    }
}

# Whatever fails here is logged; the other attempts still happen.
function Stop-Boot {
    param([string]$Step, [string]$Reason)
    $attempts = @(
        { Write-Log -Step $Step -Level 'ERROR' -Message "instance given up: $Reason" },
        { Add-LogLine $BootFailed.Replace('"@milliseconds@"', "$([DateTimeOffset]::UtcNow.ToUnixTimeMilliseconds())") },
        # The CloudWatch agent ships every 5 s, and abandoned instances end at once.
        { Start-Sleep -Seconds 20 },
        {
            Complete-ASLifecycleAction -AutoScalingGroupName $Fleet -LifecycleHookName $LaunchHook `
                -InstanceId $script:InstanceId -LifecycleActionResult 'ABANDON' -Region $Region -Force
        },
        {
            Set-ASInstanceHealth -InstanceId $script:InstanceId -HealthStatus 'Unhealthy' `
                -ShouldRespectGracePeriod $false -Region $Region -Force
        },
        { Complete-TerminateHook }
    )
    foreach ($attempt in $attempts) {
        try { & $attempt } catch { Write-Warning "$Step, giving up: $($_.Exception.Message)" }
    }
}

$step = 'start'
try {
    New-Item -ItemType Directory -Force -Path $Logs | Out-Null
    Write-Log -Step $step -Message 'boot begins'

    $step = 'logs'
    if ((Get-Service -Name 'AmazonCloudWatchAgent').Status -ne 'Running') {
        Start-Service -Name 'AmazonCloudWatchAgent'
    }

    $step = 'identity'
    $script:Token = Get-Answer @{
        Method = 'Put'
        Uri = "$MetadataUrl/latest/api/token"
        Headers = @{ 'X-aws-ec2-metadata-token-ttl-seconds' = '21600' }
    }
    $script:InstanceId = Get-Metadata 'instance-id'
    $address = Get-Metadata 'local-ipv4'
    Write-Log -Step $step -Message "this is $InstanceId at $address"

    $service = Get-Service -Name $ServiceName -ErrorAction SilentlyContinue
    if ($service -and $service.Status -ne 'Stopped') {
        Write-Log -Step 'running' -Message 'the agent runs already'
        exit 0
    }

    $step = 'scratch'
    $scratch = Initialize-Scratch
    Write-Log -Step $step -Message "workspaces are in $scratch"

    $step = 'agent'
    Update-Agent

    $step = 'environment'
    $facts = "SCANFLEET_SCRATCH=$scratch`r`nSCANFLEET_LOG_FOLDER=$Logs`r`nSCANFLEET_STATUS_HOST=$address`r`n"
    [IO.File]::WriteAllText($EnvironmentFile, "$Environment`r`n$facts")

    # Windows lets nothing in by itself, and a load balancer that gets no answer has the machine replaced.
    $step = 'firewall'
    if (-not (Get-NetFirewallRule -Name $ServiceName -ErrorAction SilentlyContinue)) {
        New-NetFirewallRule -Name $ServiceName -DisplayName $ServiceName -Direction Inbound -Action Allow `
            -Protocol TCP -LocalPort $StatusPort -Program $Python | Out-Null
    }

    # Registers the service, starts it, waits for its health, completes the launch hook.
    $step = 'service'
    Invoke-Native -Name 'the agent''s start' -Program $Python `
        -Arguments @('-I', '-X', 'utf8', '-m', 'scanfleet.agent.boot', $EnvironmentFile) `
        -OnLine { param($line) if ($line.StartsWith('{')) { Add-LogLine $line } }
    Write-Log -Step 'end' -Message 'boot ends well'
} catch {
    Stop-Boot -Step $step -Reason "${step}: $($_.Exception.Message) (line $($_.InvocationInfo.ScriptLineNumber))"
    exit 1
}
